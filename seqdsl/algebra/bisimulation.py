"""Equality of recurrences by induction (DERIVATIONS 6.2): a map between the states of two systems, kept by every step.

A map takes each state of the right side to one of the left: y[p(i)] = c[i] * x[i], where p permutes the axes and the
factor c does not read the paired states. Guesses for c are 1 and the ratio of what the two steps write. A map is a
proof if base cases agree, every step of the right keeps it, and the sides then have equal canonical forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations, product

from seqdsl.algebra.affine import NoMatch, Update, split_update, states_and_updates
from seqdsl.algebra.canon import Canon
from seqdsl.algebra.equal import same
from seqdsl.algebra.poly import product_node, public
from seqdsl.ir import build
from seqdsl.ir.dependence import recurrences
from seqdsl.ir.node import Node, read_names, rebuild, walk
from seqdsl.ir.ops import make
from seqdsl.ir.system import System

_LARGEST = 4000  # nodes of a written-out expression
_MOST_STATES = 3
_MOST_MAPS = 200


@dataclass(frozen=True)
class Pair:
    """right[order of indices] = scale * left, where `order[k]` is the place in the right state of the left's index k."""

    left: Update
    right: Update
    order: tuple[int, ...]
    scale: Node

    def reads(self, args: tuple[Node, ...]) -> Node:
        """What a read of the right state at `args` is on the left."""
        own = tuple(args[k] for k in self.order)
        at = dict(zip(self.left.state.indices, own, strict=True))
        value = build.read(self.left.state.name, own, self.left.state.dtype)
        return build.mul(build.substitute(self.scale, at), value)

    def describe(self) -> str:
        """In words."""
        x, y = f"`{self.left.state.name}`", f"`{self.right.state.name}`"
        turned = self.order != tuple(sorted(self.order))
        scaled = f"`{self.scale!r}` * {x}" if self.scale is not build.ONE else x
        return f"{y} = {scaled}{' with its axes permuted' if turned else ''}"


@dataclass(frozen=True)
class Definitions:
    """The equations of a system with the states of its recurrences left as they are."""

    system: System
    updates: Mapping[str, Update]  # states with a step of their own
    kept: frozenset[str]  # tensors of recurrences that have no such step, and the states

    def written_out(self, node: Node) -> Node | None:
        """Every definition that is not kept opened; None where it gets too long."""
        for _ in range(40):
            opened = rebuild(node, self._definition)
            if opened is node:
                return node
            node = opened
            if sum(1 for _ in walk(node)) > _LARGEST:
                return None
        return None

    def _definition(self, node: Node) -> Node | None:
        if node.op != "read" or node.attr in self.kept:
            return None
        tensor = self.system.tensors[str(node.attr)]
        if tensor.kind != "derived" or tensor.rhs is None or tensor.edges or not self.system.is_inside(node):
            return None
        at = dict(zip(tensor.indices, node.args, strict=True))
        return build.substitute(tensor.rhs, at) if build.can_substitute(tensor.rhs, at) else None

    def states_below(self, node: Node) -> list[str]:
        """The states that a written-out expression depends on, through their own steps too, in order of reading."""
        found: list[str] = []
        pending = [node]
        while pending:
            for read in walk(pending.pop()):
                name = str(read.attr)
                if read.op == "read" and name in self.updates and name not in found:
                    found.append(name)
                    pending.append(self.updates[name].rhs)
        return found


def definitions(system: System) -> Definitions:
    """The states of every recurrence whose step is known, with their steps written out."""
    updates: dict[str, Update] = {}
    kept: set[str] = set()
    for loop in recurrences(system):
        try:
            found = states_and_updates(system, loop)
        except (NoMatch, AssertionError):  # loops inside the loop
            kept |= set(loop.tensors())
            continue
        updates |= {u.state.name: u for u in found}
    plain = Definitions(system, {}, frozenset(kept | set(updates)))
    opened = {n: plain.written_out(u.rhs) for n, u in updates.items()}
    known = {
        n: Update(u.state, u.time, u.position, u.step, rhs)
        for n, u in updates.items()
        if (rhs := opened[n]) is not None
    }
    return Definitions(system, known, plain.kept)


def bisimulation(known: Definitions, a: Node, b: Node) -> tuple[Pair, ...] | None:
    """A map of the states of b to those of a that proves a equal to b (both written out), or None."""
    left, right = (known.states_below(x) for x in (a, b))
    left, right = [n for n in left if n not in right], [n for n in right if n not in left]
    if not right or len(right) > len(left) or max(len(left), len(right)) > _MOST_STATES:
        return None
    for count, pairs in enumerate(_maps(known, left, right)):
        if count == _MOST_MAPS:
            return None
        if _is_kept(known, pairs) and _same_or_stepped(known, a, _moved(b, pairs), pairs):
            return pairs
    return None


def _maps(known: Definitions, left: list[str], right: list[str]) -> Iterator[tuple[Pair, ...]]:
    """The guesses: states with the same axes, in every order of like axes, with each factor worth trying."""
    for chosen in permutations(left, len(right)):
        options = [
            [Pair(known.updates[x], known.updates[y], order, build.ONE) for order in _orders(known, x, y)]
            for x, y in zip(chosen, right, strict=True)
        ]
        for plain in product(*options):
            yield plain
            scaled = [_with_ratio(known, pair) for pair in plain]
            if any(s is not None for s in scaled):
                yield tuple(s or p for s, p in zip(scaled, plain, strict=True))


def _orders(known: Definitions, left: str, right: str) -> list[tuple[int, ...]]:
    x, y = known.updates[left], known.updates[right]
    axes, others = ([known.system.axis(i) for i in u.state.indices] for u in (x, y))
    if sorted(axes) != sorted(others) or x.step != y.step:
        return []
    return [
        order
        for order in permutations(range(len(axes)))
        if all(axes[k] == others[place] for k, place in enumerate(order)) and order[x.position] == y.position
    ]


def _with_ratio(known: Definitions, pair: Pair) -> Pair | None:
    """The factor as what the right step writes over what the left one writes, if that is one product."""
    names = {pair.left.state.name, pair.right.state.name}
    try:
        writes = [split_update(known.system, u.rhs, names)[1] for u in (pair.left, pair.right)]
        renamed = _in_indices_of_left(pair, writes[1])
        found = Canon(known.system).poly(make("div", renamed, writes[0])).terms
    except (NoMatch, *FAILURES):
        return None
    if len(found) != 1 or found[0].bound or not found[0].free <= frozenset(pair.left.state.indices):
        return None
    scale = public(product_node(found[0]))
    return None if names & read_names(scale) else Pair(pair.left, pair.right, pair.order, scale)


FAILURES = (RecursionError, AssertionError, KeyError, ValueError, OverflowError, ZeroDivisionError)


def _in_indices_of_left(pair: Pair, node: Node) -> Node:
    own = pair.right.state.indices
    return build.substitute(node, {own[p]: build.index(i) for i, p in zip(pair.left.state.indices, pair.order, strict=True)})


def _moved(node: Node, pairs: tuple[Pair, ...]) -> Node:
    """The induction hypothesis: the right states replaced by what they are on the left."""
    by_name = {p.right.state.name: p for p in pairs}

    def change(n: Node) -> Node | None:
        pair = by_name.get(str(n.attr)) if n.op == "read" else None
        return pair.reads(n.args) if pair is not None else None

    return rebuild(node, change)


def _is_kept(known: Definitions, pairs: tuple[Pair, ...]) -> bool:
    """Do base cases agree, and does every step of the right keep the map?"""
    return all(_same_start(known, p) for p in pairs) and all(
        _same_or_stepped(
            known, build.mul(p.scale, p.left.rhs), _in_indices_of_left(p, _moved(p.right.rhs, pairs)), pairs
        )
        for p in pairs
    )


def _same_start(known: Definitions, pair: Pair) -> bool:
    x, y = pair.left.state, pair.right.state
    if len(x.edges) != len(y.edges):
        return False
    for one, other in zip(x.edges, y.edges, strict=True):
        if one.point is not other.point or pair.order[one.position] != other.position or one.position != pair.left.position:
            return False
        a, b = (known.system.tensors[e.tensor] for e in (one, other))
        if a.rhs is None or b.rhs is None:
            return False
        at = {i: build.index(j) for j, i in zip(x.indices, (y.indices[p] for p in pair.order), strict=True)}
        factor = _at_start(known, pair.scale, pair.left.time, one.point)
        if not same(known.system, build.mul(factor, a.rhs), build.substitute(b.rhs, at)):
            return False
    return True


def _at_start(known: Definitions, scale: Node, time: str, point: Node) -> Node:
    """The factor before the first step: what it reads there is a base case, or 0."""

    def change(n: Node) -> Node | None:
        if n.op != "read" or point not in n.args:
            return None
        for edge in known.system.tensors[str(n.attr)].edges:
            owner = known.system.tensors[edge.tensor]
            if n.args[edge.position] is point is edge.point and owner.rhs is not None:
                rest = (a for k, a in enumerate(n.args) if k != edge.position)
                return build.substitute(owner.rhs, dict(zip(owner.indices, rest, strict=True)))
        return build.ZERO

    return rebuild(build.substitute(scale, {time: point}), change)


def _same_or_stepped(known: Definitions, a: Node, b: Node, pairs: tuple[Pair, ...]) -> bool:
    """Equal as they stand, or once the other states at this step (a running sum in a factor) are stepped once."""
    if same(known.system, a, b):
        return True
    paired = {n for p in pairs for n in (p.left.state.name, p.right.state.name)}
    stepped = [rebuild(x, _stepping(known, paired)) for x in (a, b)]
    return (stepped[0] is not a or stepped[1] is not b) and same(known.system, *stepped)


def _stepping(known: Definitions, paired: set[str]) -> Callable[[Node], Node | None]:
    def change(n: Node) -> Node | None:
        update = known.updates.get(str(n.attr)) if n.op == "read" and n.attr not in paired else None
        if update is None or not all(a.op == "index" for a in n.args):
            return None
        at = dict(zip(update.state.indices, n.args, strict=True))
        return build.substitute(update.rhs, at) if build.can_substitute(update.rhs, at) else None

    return change
