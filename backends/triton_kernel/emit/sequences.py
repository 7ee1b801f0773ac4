"""Which equations over whole sequences go into one kernel: those that PyTorch would run as many passes over memory.

A group has one set of indices, the stream's among them: what its equations compute entry by entry, and the sums over
feature axes that norms need, of which a program holds whole rows. Equations of one set go together if one reads the other
or both read the same tensor of that size. What no kernel computes (projections, recurrences, reads at other positions) is
a tensor of its own, and so is what a projection is applied to. A group is kept if it moves fewer tensors of its size than
PyTorch would. What stands in a loop over depth is asked for by `depth`. Entry point: `over_sequences`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, schedule
from seqdsl.ir.derivatives import ELEMENTWISE, STOPS
from seqdsl.ir.graphs import cycle
from seqdsl.ir.node import Node, exchanged, rebuild, walk
from seqdsl.ir.ops import bound
from seqdsl.ir.system import System, Tensor, index_names, sources

from ...torch_module.loops import sink
from ...torch_module.table import UNSAFE
from ...torch_module.tables import constant
from .normal import POWERS, SHIFTED, SUMS, multiplied, through_sums
from .numbers import is_fixed
from .parts import Group, Grouped, Parts, read_outside
from .texts import has_text
from .windows import Window, window

WINDOW = 8  # tensors that a window of two taps moves in PyTorch: a shifted copy, a product, and a sum for each
MOST = 12  # tensors of its size that a kernel loads and stores: registers bound them


def over_sequences(system: System, still: frozenset[str] = frozenset()) -> Grouped:
    """The groups of a system, and of the equations that could have been in one, why they are not. Inside a loop, whose index
    stands `still`, what mentions it is in none, and neither are windows."""
    operands = _Operands(Sequenced(system, still))
    search = _Search(operands.outlined(), still)
    search.run()
    used = {n for g in search.groups for n in g.tensors}
    search.system = _inlined(search.system, {t.name: t for t in operands.made.values() if t.name not in used})
    changed: list[Tensor] = []
    for group in search.groups:
        changed += search.outlined(group)
    found = search.system.with_tensors(*changed)
    steps = {s.tensor for s in sink(found, schedule(found)) if isinstance(s, Compute)}
    assert all(n in steps for g in search.groups for n in g.tensors), "a group's equation was taken into a loop"
    return Grouped(found, tuple(search.groups), search.kept)


def _inlined(system: System, tensors: dict[str, Tensor]) -> System:
    """The system with the right sides of some tensors in the place of their reads."""

    def written(node: Node) -> Node | None:
        found = tensors.get(str(node.attr)) if node.op == "read" else None
        return None if found is None or found.rhs is None else rebuild(found.rhs, written)

    changed = [replace(t, rhs=rebuild(t.rhs, written)) for t in system.derived() if t.rhs is not None]
    return system.with_tensors(*changed, drop=tuple(tensors))


@dataclass
class Sequenced(Parts):
    """What kernels over whole sequences have text for."""

    still: frozenset[str] = frozenset()
    known: dict[Node, bool] = field(default_factory=dict)

    def plain(self, node: Node) -> bool:
        if node not in self.known:
            self.known[node] = self._plain(node)
        return self.known[node]

    def _plain(self, node: Node) -> bool:
        if any(n.dtype == "complex" for n in (node, *node.args)):
            return False
        if node.op == "index":
            return not self.streamed(str(node.attr))
        if node.op == "read":
            return self._level(node)
        if self.window(node) is not None:
            return True
        if node.op in ("sum", *SUMS, *SHIFTED):
            return node.args[1] is build.TRUE and self._covered(node)
        if node.op == "pow":
            return build.value_of(node.args[1]) in POWERS
        if node.op == "where":  # of what is not chosen the derivative must be finite
            return not any(n.op in UNSAFE or n.op in SHIFTED for a in node.args[1:] for n in walk(a))
        return has_text(node) and (node.op in ELEMENTWISE or node.op in STOPS)

    def window(self, node: Node) -> Window | None:
        return window(self.system, node) if node.op == "sum" and not self.still else None

    def whole_leaf(self, node: Node) -> bool:
        return node.op == "read" or self.window(node) is not None

    def streamed(self, index: str) -> bool:
        return self.system.axis(index) == self.system.stream

    def _level(self, node: Node) -> bool:
        """A read of a tensor along its own axes."""
        tensor = self.system.tensors.get(str(node.attr))
        if tensor is None or any(a.op != "index" for a in node.args) or len(set(node.args)) < len(node.args):
            return False
        same = all(self.system.axis(i) == self.system.axis(str(a.attr)) for i, a in zip(tensor.indices, node.args, strict=True))
        return same and not any(p.startswith("<") for p in tensor.path)

    def _covered(self, node: Node) -> bool:
        """Does a sum read something that has all its indices, so that a tile of that is what it needs? What is read at other
        positions would be larger than what it is made of."""
        names, hidden = {*bound(node)}, self.foreign(node.args[0])
        parts = [*hidden, *(n for n in self.inside(node.args[0]) if self.whole_leaf(n))]
        windows = any(n.op == "read" and n.free & names for n in hidden)
        return not windows and not any(map(self.streamed, names)) and any(n.free >= node.free | names for n in parts)

    def may(self, tensor: Tensor) -> bool:
        """Can a kernel compute this equation?"""
        names = self.space(tensor) if tensor.rhs is not None else ()
        return (
            tensor.kind == "derived" and tensor.dtype == "real" and tensor.rhs is not None and not tensor.edges
            and tensor.rhs.op != "read" and self.plain(tensor.rhs) and sum(map(self.streamed, names)) == 1
            and not any(i.endswith("'") for i in names) and self.still.isdisjoint(index_names(tensor.rhs))
        )  # fmt: skip


@dataclass
class _Operands:
    """What projections are applied to, where that is an expression that a kernel computes, as tensors: `made` by the
    expression, `reading` the projections of them."""

    parts: Sequenced
    made: dict[Node, Tensor] = field(default_factory=dict)
    reading: dict[Node, Node] = field(default_factory=dict)

    def outlined(self) -> System:
        """The system with them."""
        system = self.parts.system
        for step in schedule(system):
            tensor = system.tensors[step.tensor] if isinstance(step, Compute) else None
            if tensor is not None and tensor.rhs is not None and tensor.kind == "derived":
                self._visit(tensor.rhs, tensor.name)
        every = [*system.derived(), *self.made.values()]
        changed = [replace(t, rhs=exchanged(t.rhs, self.reading)) for t in every if t.rhs is not None]
        return system.with_tensors(*(t for t in changed if system.tensors.get(t.name) != t))

    def _visit(self, right: Node, name: str) -> None:
        for part in self.parts.foreign(right):
            found = self._split(part)
            if found is None:
                continue
            operand, weight = found
            tensor = self.made.get(operand) or self._tensor(operand, f"{name}.in")
            if not replace(self.parts, system=self.parts.system.with_tensors(tensor), known={}).may(tensor):
                continue
            self.made[operand] = tensor
            self._visit(operand, name)
            self.reading[part] = build.reduce("sum", bound(part), build.mul(build.whole(tensor), weight))

    def _tensor(self, operand: Node, name: str) -> Tensor:
        """Its indices in the order of the largest tensor that it is made of."""
        leaves = [*self.parts.foreign(operand), *(n for n in self.parts.inside(operand) if n.op == "read")]
        plainly = [n for n in leaves if n.op == "read" and all(a.op == "index" for a in n.args)]
        order = dict.fromkeys([*max(([str(a.attr) for a in n.args] for n in plainly), key=len, default=[]), *sorted(operand.free)])
        taken = {*self.parts.system.tensors, *(t.name for t in self.made.values())}
        return Tensor(build.numbered(name, taken), tuple(i for i in order if i in operand.free), operand.dtype, "derived", operand)

    def _split(self, node: Node) -> tuple[Node, Node] | None:
        """The operand and the weight of a projection: the factor that makes an index, a parameter."""
        if node.op != "sum" or node.args[1] is not build.TRUE:
            return None
        factors = _factors(node.args[0])
        have = frozenset[str]().union(*(f.free for f in factors if not self._is_weight(f)))
        makers = [f for f in factors if self._is_weight(f) and f.free - have]
        operand = build.product(f for f in factors if f not in makers)
        if len(makers) != 1 or not have >= {*bound(node)} or operand.op == "read":
            return None
        return operand, makers[0]

    def _is_weight(self, node: Node) -> bool:
        return node.op == "read" and self.parts.system.tensors[str(node.attr)].kind in ("param", "const")


def _factors(node: Node) -> list[Node]:
    return [f for a in node.args for f in _factors(a)] if node.op == "mul" else [node]


@dataclass
class _Search(Sequenced):
    groups: list[Group] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Find the groups of what stands in no loop."""
        plan = sink(self.system, schedule(self.system))
        places = {name: k for k, step in enumerate(plan) for name in step.tensors()}
        fixed = constant(self.system, frozenset())  # computed once, and in double precision where digits may be lost
        for step in plan:
            if isinstance(step, Compute) and step.tensor not in fixed and self.may(self.system.tensors[step.tensor]):
                self._take(self.system.tensors[step.tensor], places)
        for group in list(self.groups):
            group.tensors.sort(key=places.__getitem__)
            self.arrange(group)
            self._hold(group)
            group.moved = self.tensors_moved(group)
            if group.moved[0] >= group.moved[1]:
                why = "a kernel would move {} tensors of its size, and PyTorch moves {}".format(*group.moved)
                self.groups.remove(group)
                self.kept |= dict.fromkeys(group.tensors if group.moved[1] else (), why)

    def _take(self, tensor: Tensor, places: dict[str, int]) -> None:
        """Put an equation into a group: of those that it can go with, or of its own."""
        space = self.space(tensor)
        found = Group([tensor.name], space, self.whole(tensor), stream=next(filter(self.streamed, space)))
        for other in [g for g in self.groups if self._related(g, found)]:
            joined = self._merged(other, found)
            groups = [joined, *(g for g in self.groups if g is not other)]
            if self._possible(joined) and not is_cyclic(self.system, groups, places):
                self.groups.remove(other)
                found = joined
        self.groups.append(found)

    def _hold(self, group: Group) -> None:
        """Hold all positions of the column, too, if something lacks it: its gradient is then a sum over it."""
        real = [n for name in group.tensors for n in self._leaves(name) if n.dtype == "real"]
        while group.column and any(group.column not in n.free for n in real):
            group.whole = tuple(i for i in group.space if i in (*group.whole, group.column))

    def _leaves(self, name: str) -> list[Node]:
        """What the kernel of an equation loads, or has from another one; a window counts as what it is made of."""
        right = self.right(name)
        return [*self.foreign(right), *(n for n in self.inside(right) if self.whole_leaf(n))]

    def _related(self, one: Group, two: Group) -> bool:
        """Does one read the other, or both the same tensor of their size?"""
        if {*one.space} != {*two.space}:
            return False
        found = []
        for group in (one, two):
            leaves = {n for name in group.tensors for n in self._leaves(name) if n.free == {*one.space}}
            found.append(leaves | {build.whole(self.system.tensors[name]) for name in group.tensors})
        return bool(found[0] & found[1])

    def _merged(self, one: Group, two: Group) -> Group:
        whole = tuple(dict.fromkeys([*one.whole, *two.whole]))
        return Group([*one.tensors, *two.tensors], one.space, whole, stream=one.stream)

    def _possible(self, group: Group) -> bool:
        """Is all that it reads of itself at its own place, and does it fit a program?"""
        names = {*group.tensors}
        own = {build.whole(self.system.tensors[n]) for n in names}
        inner = [n for name in names for n in walk(self.right(name)) if n.op == "read" and str(n.attr) in names]
        hidden = [n for name in names for n in self.hidden(name) if n.op == "read" and str(n.attr) in names]
        return set(inner) <= own and not hidden and self.tensors_moved(group)[0] <= MOST

    def tensors_moved(self, group: Group) -> tuple[int, int]:
        """How many tensors of a group's size its kernel loads and stores, and how many PyTorch would."""
        size, names = {*group.space}, {*group.tensors}
        leaves = {n for name in names for n in self._leaves(name) if n.free == size and not (n.op == "read" and n.attr in names)}
        stored = [n for n in read_outside(self.system, group) if {*self.system.tensors[n].indices} == size]
        before, seen = 0, set[Node]()
        for name in group.tensors:
            windows = [n for n in self.inside(self.right(name)) if self.window(n) is not None]
            parts = {n: build.read(f"@{k}", map(build.index, sorted(n.free)), n.dtype)
                     for k, n in enumerate([*self.foreign(self.right(name)), *windows])}  # fmt: skip
            before += WINDOW * len(windows)
            found = [n for n in walk(through_sums(multiplied(exchanged(self.right(name), parts)))) if n not in seen]
            seen |= {*found}
            operations = [n for n in found if n.op not in ("read", "const", "stop") and not is_fixed(n)]
            before += sum((n.free == size) + len({a for a in n.args if a.free == size}) for n in operations)
        return len(leaves) + len(stored), before


def is_cyclic(system: System, groups: list[Group], places: dict[str, int]) -> bool:
    """Would a group need what PyTorch computes from it? Tensors of one step of the schedule count as one."""
    together = {n: f"group {k}" for k, g in enumerate(groups) for n in g.tensors}
    graph: dict[str, set[str]] = {}
    for tensor in system.derived():
        at = together.get(tensor.name, f"step {places.get(tensor.name)}")
        for name in sources(system, tensor):
            source = together.get(name, f"step {places.get(name)}")
            if "step None" not in (source, at) and source != at:
                graph.setdefault(source, set()).add(at)
    return bool(cycle(graph))
