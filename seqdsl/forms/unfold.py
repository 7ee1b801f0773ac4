"""Folds of declared monoids as the recurrences that they are, so that what holds of equations holds of them.

A whole fold is its balanced tree, level by level: each entry of a level combines two neighbours of the one below, and an
odd last one is passed up. That is its meaning, and needs no law. A guarded fold, a prefix too, goes from one position to
the next: rule 34 asks that its operator be associative (`algebra.folds`), so the tree over the guard's points has the same
value. Entry point: `unfolded`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.algebra.declared import Element, combine, lifted, project
from seqdsl.ir import build
from seqdsl.ir.differentiate import NotDifferentiable
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.ops import make
from seqdsl.ir.system import Edge, Index, Monoid, System, Tensor, folds


def unfolded(system: System) -> System:
    """The system without folds, and without a state record of its own, if there are any. Raises `NotDifferentiable`."""
    for tensor in system.derived():
        while found := folds(system.tensors[tensor.name].rhs):
            system = replace(_without(system, system.tensors[tensor.name], found[0]), record=None)
    return system


def _without(system: System, owner: Tensor, node: Node) -> System:
    if len(node.attr[1]) != 1:
        raise NotDifferentiable(f"`{owner.name}` folds over several indices at once")
    free = node.free.difference(node.attr[2])
    names = {n: n.rstrip("'") for n in sorted(free, key=lambda n: (*(i != n for i in owner.indices), n))}
    if len({*names.values()}) < len(names):
        raise NotDifferentiable(f"`{owner.name}` folds at two positions of one index")
    monoid, time = system.monoids[str(node.attr[0])], str(node.attr[1][0])
    label = build.numbered(f"{owner.name}.{monoid.name.rpartition('.')[2]}", system.tensors)
    along = build.fresh(f"{label}.{time}".rstrip("'"), system.indices)
    own = system.index(time)
    system = system.with_indices(Index(along, own.axis, own.size))
    moved = {time: build.index(along), **{n: build.index(p) for n, p in names.items()}}
    *args, guard = (build.substitute(a, moved) for a in node.args)
    fold = _Fold(monoid, label, along, tuple(names.values()), lifted(monoid, args), guard)
    system, value = fold.tree(system) if guard is build.TRUE else fold.prefix(system) or fold.chosen(system)
    shape = next((t.indices for t in monoid.project if t.name == monoid.output), dict(monoid.fields).get(monoid.output, ()))
    value = build.substitute(value, {i: build.index(m) for i, m in zip(shape, node.attr[2], strict=True)})
    whole = fold.tensor("", (*names.values(), *node.attr[2]), node.dtype, value)
    read = build.read(whole.name, [build.index(i) for i in (*names, *node.attr[2])], node.dtype)
    assert owner.rhs is not None
    rhs = rebuild(owner.rhs, lambda n: read if n is node else None)
    return system.with_tensors(whole, replace(owner, rhs=rhs))


@dataclass(frozen=True)
class _Fold:
    """A fold along an index of its own; `lanes` are the other ones that its operands or its guard vary along."""

    monoid: Monoid
    label: str
    along: str
    lanes: tuple[str, ...]
    leaf: Element
    guard: Node

    def tensor(self, name: str, indices: tuple[str, ...], dtype: str, rhs: Node, edges: tuple[Edge, ...] = ()) -> Tensor:
        """An equation of this fold."""
        right = build.at_least_real(rhs) if dtype == "real" else rhs
        return Tensor(self.label + name, indices, dtype, "derived", right, edges, comment=f"part of {self.label}")

    def types(self) -> list[tuple[str, tuple[str, ...], str]]:
        """The fields, their indices and their types."""
        types = self.monoid.types or ("real",) * len(self.monoid.fields)
        return [(name, indices, kind) for (name, indices), kind in zip(self.monoid.fields, types, strict=True)]

    def at(self, *places: Node, lanes: tuple[str, ...]) -> Element:
        """The element of the recurrence at a place."""
        rest = [build.index(i) for i in lanes]
        return {
            name: build.read(f"{self.label}.{name}", [*places, *rest, *map(build.index, own)], kind)
            for name, own, kind in self.types()
        }

    def identity(self) -> Element | None:
        """The value of no points."""
        if self.monoid.identity is None:
            return None
        return {name: node for (name, *_), node in zip(self.types(), self.monoid.identity, strict=True)}

    def recurrence(self, indices: tuple[str, ...], lanes: tuple[str, ...], step: Element, start: Element | None) -> list[Tensor]:
        """Equations over `indices` and lanes, with their values before the first position along the first index."""
        found = []
        for name, own, kind in self.types():
            edges: tuple[Edge, ...] = ()
            if start is not None:
                before = self.tensor(f".{name}.start", (*indices[1:], *lanes, *own), kind, start[name])
                edges = (Edge(0, build.const(-1), before.name),)
                found.append(before)
            found.append(self.tensor(f".{name}", (*indices, *lanes, *own), kind, step[name], edges))
        return found

    def tree(self, system: System) -> tuple[System, Node]:
        """Every level of the balanced tree."""
        level, length = build.fresh(f"{self.label}.level", system.indices), build.size(self.along)
        last = make("maximum", build.sub(length, build.ONE), build.ZERO)
        system = system.with_indices(Index(level, level, make("bit_length", last)))
        width = make("pow", build.const(2), build.index(level))
        below = make("floor_div", build.add(length, build.sub(width, build.ONE)), width)
        left = build.mul(build.const(2), build.index(self.along))
        right, under = build.add(left, build.ONE), build.sub(build.index(level), build.ONE)
        a, b = (self.at(under, place, lanes=self.lanes) for place in (left, right))
        pair, paired = make("lt", right, below), combine(self.monoid, a, b)
        step = {name: build.where(pair, paired[name], a[name]) for name in a}
        equations = self.recurrence((level, self.along), self.lanes, step, self.leaf)
        top = project(self.monoid, self.at(build.sub(build.size(level), build.ONE), build.ZERO, lanes=self.lanes))
        nothing = self.identity()
        if nothing is not None:
            top = build.where(make("eq", length, build.ZERO), project(self.monoid, nothing), top)
        return system.with_tensors(*equations), top

    def prefix(self, system: System) -> tuple[System, Node] | None:
        """One recurrence for all positions t of a guard `s <= t` or `s < t`."""
        first, last = (self.guard.args if self.guard.op in ("le", "lt") else (build.ZERO, build.ZERO))
        varies = frozenset().union(*(n.free for n in self.leaf.values()))
        nothing = self.identity()
        if first is not build.index(self.along) or last.op != "index" or last.attr in varies:
            return None
        if system.axis(str(last.attr)) != system.axis(self.along) or (self.guard.op == "lt" and nothing is None):
            return None
        lanes = tuple(i for i in self.lanes if i != last.attr)
        here = build.index(self.along)
        step = combine(self.monoid, self.at(build.sub(here, build.ONE), lanes=lanes), self.leaf)
        if nothing is None:
            step = {n: build.where(make("eq", here, build.ZERO), self.leaf[n], step[n]) for n in step}
        place = last if self.guard.op == "le" else build.sub(last, build.ONE)
        equations = self.recurrence((self.along,), lanes, step, nothing)
        return system.with_tensors(*equations), project(self.monoid, self.at(place, lanes=lanes))

    def chosen(self, system: System) -> tuple[System, Node]:
        """A recurrence of its own for each position of the lanes, over the points of a guard."""
        nothing = self.identity()
        if nothing is None:
            raise NotDifferentiable(f"`{self.label}` is a guarded fold without an identity")
        before = self.at(build.sub(build.index(self.along), build.ONE), lanes=self.lanes)
        joined = combine(self.monoid, before, self.leaf)
        step = {n: build.where(self.guard, joined[n], before[n]) for n in before}
        equations = self.recurrence((self.along,), self.lanes, step, nothing)
        last = build.sub(build.size(self.along), build.ONE)
        return system.with_tensors(*equations), project(self.monoid, self.at(last, lanes=self.lanes))
