"""Recurrences over a graph whose edges the inputs give: all positions of a level at once.

A position of `h[n] = f(x[n], sum[m | m < n and key[m] == at[n]] g(h[m], ..))` waits for those that its guard lets through,
and these are known before anything is computed: the guard reads no state. Its level is one more than the highest level
that it waits for, so positions of one level do not read each other (a longest path; Kahn 1962). Levels are found at each
call, from the numbers; a loop over them takes as many steps as the longest path is long, in place of one for each
position, and touches each pair of positions that the guard lets through once, in place of all of them.

What is covered is decided by the dependence graph and the guards: a loop over one axis by one index, whose tensors read
each other at the position itself, and at other positions only
  - in a sum, max, min or logsumexp over one index e: the position itself along a second index of the axis, or edges
    with reads `h[src[e]]`; further indices of the same sum are summed at each pair (`sum[m,k | ..] W * h[m,k]`). The
    guard may say anything of the position and of e, and has to put what is read before (that is what makes the
    equations well founded; hence no numbers make a cycle);
  - or directly, at a position that the inputs give, `where(p < n, h[p], 0)`, as in a tree of which each node knows its
    parent.
The step may be any, and there may be several states. The pairs that a guard lets through are found by sorting where it
compares something of e with something of the position by `==`, and else from all pairs.

The system says it with ordinary equations: each such sum becomes a tensor of its own, `h.sum`, a read `h[p]` a sum over
the one position that it hits, and the right sides are marked `level(f)`, whose value is f.

Refused, with the reason: reads at a fixed distance and guards that only say what comes before (each position waits for
the one before: as many levels as positions), guards that read a state or differ from lane to lane, reads below a choice
inside of a sum, states that are not real, reads that may fall on a base case, and
those of a window or a boundary, of which a state record holds less than all. Entry point: `to_levels`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from seqdsl.algebra.affine import NoMatch
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, NotWellFounded, build_not, recurrences
from seqdsl.ir.node import Node, read_names, reads, walk
from seqdsl.ir.ops import OPS, bound, make, remake
from seqdsl.ir.order import difference
from seqdsl.ir.system import Index, System, Tensor

OVER_PAIRS = ("sum", "max", "min", "logsumexp")
Facts = tuple[Node, ...]


def to_levels(system: System, loop: Loop) -> System:
    """Take the sums over earlier positions out of a recurrence, and mark it. Raises `NoMatch` with the reason."""
    if any(not isinstance(step, Compute) for step in loop.body):
        raise NoMatch("it takes more than one loop")
    names = loop.tensors()
    at = {system.tensors[n].indices[p] for n, p in loop.positions}
    if len(at) > 1:
        raise NoMatch(f"its tensors do not all run over `{loop.axis}` by the same index")
    found = _Found(system, dict(loop.positions), at.pop())
    steps = {n: found.visit(system.tensors[n], _rhs(system, n), (), frozenset()) for n in names}
    if not found.made:
        raise NoMatch(f"it runs over `{loop.axis}` alone, and reads nothing that a guard picks", out_of_scope=True)
    if any(system.tensors[n].dtype != "real" for n in names):
        raise NoMatch("its states are not all real numbers")
    if any(e.tensor in names and (e.tail is not None or e.boundary is not None) for e in system.record or ()):
        raise NoMatch("the state record holds some of what came before, and a graph may read any")
    made = [replace(t, rhs=make("level", _rhs_of(t))) for t in found.made.values()]
    changed = [replace(system.tensors[n], rhs=make("level", steps[n])) for n in names]
    after = system.with_indices(*found.indices.values()).with_tensors(*made, *changed)
    try:
        recurrences(after)
    except NotWellFounded:
        raise NoMatch("a read is put before its position by conditions outside of its sum") from None
    return after


def _rhs(system: System, name: str) -> Node:
    return _rhs_of(system.tensors[name])


def _rhs_of(tensor: Tensor) -> Node:
    assert tensor.rhs is not None
    return tensor.rhs


@dataclass
class _Found:
    """A loop's sums over earlier positions, `made`, by what they sum; `at` is the index of the position."""

    system: System
    places: dict[str, int]
    at: str
    made: dict[Node, Tensor] = field(default_factory=dict)
    indices: dict[str, Index] = field(default_factory=dict)  # those of the sums that are made of reads

    def visit(self, tensor: Tensor, node: Node, facts: Facts, inner: frozenset[str]) -> Node:
        """The term with reads of the sums in place of them; `facts` hold around it, `inner` is bound around it."""
        if not self._depends(node):
            return node
        if node.op == "read":
            if node.attr in self.places:
                return self._read(tensor, node, facts, inner)
            raise NoMatch(f"the state is an index, in `{node!r}`")
        if node.op == "where":
            return self._choice(tensor, node, facts, inner)
        own = bound(node)
        over = [i for i in own if any(i in self._place(r).free for r in self._away(node))]
        if over:
            return self._sum(tensor, node, facts, inner, over)
        if OPS[node.op].binding in ("reduce", "along"):
            *bodies, guard = node.args
            self._check_guard(guard)
            held, below = (*facts, *build.conjuncts(guard)), inner | frozenset(own)
            return remake(node, (*(self.visit(tensor, b, held, below) for b in bodies), guard))
        below = inner | frozenset(own)
        return remake(node, tuple(self.visit(tensor, a, facts, below) for a in node.args))

    def _choice(self, tensor: Tensor, node: Node, facts: Facts, inner: frozenset[str]) -> Node:
        condition, a, b = node.args
        yes, no = build.conjuncts(condition), build.conjuncts(build_not(condition))
        return build.make(
            "where",
            self.visit(tensor, condition, facts, inner),
            self.visit(tensor, a, (*facts, *yes), inner),
            self.visit(tensor, b, (*facts, *no), inner),
        )

    def _depends(self, node: Node) -> bool:
        return any(n in self.places for n in read_names(node))

    def _place(self, read: Node) -> Node:
        """Where along the looped axis a state is read."""
        return read.args[self.places[str(read.attr)]]

    def _away(self, node: Node) -> list[Node]:
        """The reads of states below a node at other positions than the step's own."""
        return [r for r in reads(node) if r.attr in self.places and self._place(r) is not build.index(self.at)]

    def _check_guard(self, guard: Node) -> None:
        if self._depends(guard):
            raise NoMatch(f"the state decides a guard, `{guard!r}`")

    def _read(self, tensor: Tensor, node: Node, facts: Facts, inner: frozenset[str]) -> Node:
        """A state at the step's own position as it is; at another one that the inputs give, as a sum over that one."""
        if any(self._depends(a) for a in node.args):
            raise NoMatch(f"the state is an index, in `{node!r}`")
        place = self._place(node)
        if place is build.index(self.at):
            return node
        if set(difference(place, build.index(self.at))) <= {None}:
            alone = f"it runs over `{self.system.axis(self.at)}` alone, and has no fronts"
            why = f"{alone}: `{node!r}` is at a fixed distance, and each position waits for the one before"
            raise NoMatch(why, out_of_scope=True)
        if place.free - {self.at}:
            raise NoMatch(f"`{node!r}` is read at another position in each lane")
        one = build.numbered(f"{self.at}.read", {*self.system.indices, *self.indices})
        self.indices[one] = replace(self.system.index(self.at), name=one)
        at = [build.index(one) if a is place else a for a in node.args]
        told = [f for f in facts if f.free <= {self.at} and not self._depends(f)]
        guard = build.every([make("eq", build.index(one), place), *told])
        self._check_base_case(node)
        body = build.read(str(node.attr), at, node.dtype)
        return self._made(tensor, make("sum", body, guard, attr=((one,), ())), "read")

    def _check_base_case(self, read: Node) -> None:
        state = self.system.tensors[str(read.attr)]
        if any(edge.position == self.places[state.name] for edge in state.edges):
            raise NoMatch(f"`{read!r}` may fall on a base case of `{state.name}`")

    def _sum(self, tensor: Tensor, node: Node, facts: Facts, inner: frozenset[str], over: list[str]) -> Node:
        """A reduction over earlier positions, as one over the index that picks them, of one over the others."""
        if node.op not in OVER_PAIRS:
            raise NoMatch(f"a state at other positions stands inside `{node.op}`, as in `{node!r}`")
        if len(over) > 1:
            raise NoMatch(f"what is read is picked by more than one index, in `{node!r}`")
        (item,) = over
        body, guard = node.args
        self._check_guard(guard)
        self._check_body(body, item)
        rest = [i for i in bound(node) if i != item]
        pairs, inside = build.TRUE, build.TRUE
        for fact in build.conjuncts(guard):
            if fact.free & {*rest}:
                inside = build.both(inside, fact)
            else:
                pairs = build.both(pairs, fact)
        if pairs.free - {self.at, item}:
            raise NoMatch(f"the guard `{pairs!r}` differs from lane to lane")
        if not any(f.op == "eq" or read_names(f) for f in build.conjuncts(pairs)):
            raise NoMatch(f"the guard `{pairs!r}` only says what comes before: each position waits for the one before")
        for fact in facts:
            if fact.free <= {self.at} and not self._depends(fact):
                pairs = build.both(pairs, fact)
        if rest or inside is not build.TRUE:
            body = build.reduce(node.op, rest, body, inside) if rest else body
        return self._made(tensor, make(node.op, body, pairs, attr=((item,), ())), node.op)

    def _check_body(self, body: Node, item: str) -> None:
        """Reads at a place that the position and the item give, below no choice and in no further reduction of these."""
        for read in self._away(body):
            if self._place(read).free - {self.at, item}:
                raise NoMatch(f"`{read!r}` is read at another position in each lane")
            if any(self._depends(a) for a in read.args):
                raise NoMatch(f"the state is an index, in `{read!r}`")
            if self._place(read).op != "index":
                self._check_base_case(read)
        for n in walk(body):
            if self._away(n):
                if n.op == "where":
                    raise NoMatch(f"a state is read below a choice, `{n!r}`: its condition belongs to the guard of the sum")
                if self.at in bound(n) or item in bound(n):
                    raise NoMatch(f"`{n!r}` stands in a sum over the same index")
                if OPS[n.op].binding == "fold":
                    raise NoMatch(f"a state at other positions stands inside `{n.op}`, as in `{n!r}`")

    def _made(self, tensor: Tensor, node: Node, kind: str) -> Node:
        """A read, at the position, of the tensor that holds a sum."""
        if node not in self.made:
            taken = {*self.system.tensors, *(t.name for t in self.made.values())}
            name = build.numbered(f"{tensor.name}.{kind}", taken)
            rest = [i for i in dict.fromkeys([*tensor.indices, *sorted(node.free)]) if i in node.free and i != self.at]
            comment = f"over what {tensor.name} waits for"
            self.made[node] = Tensor(name, (self.at, *rest), node.dtype, "derived", node, comment=comment)
        made = self.made[node]
        return build.whole(made)


def join_of(node: Node) -> tuple[Node, Node] | None:
    """What the guard of a sum over pairs compares of the position and of the item by `==`: (of the one, of the other)."""
    if node.op not in OVER_PAIRS:
        return None
    item = frozenset(bound(node))
    for fact in build.conjuncts(node.args[-1]):
        if fact.op == "eq" and all(side.dtype == "int" for side in fact.args):
            for own, other in (fact.args, fact.args[::-1]):
                if not own.free & item and other.free == item:
                    return own, other
    return None
