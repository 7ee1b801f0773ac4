"""Equations of which a kernel computes some parts and PyTorch the others, which become tensors of their own.

What a kernel has text for is said by whoever groups equations: `Parts.plain`. Entry points: `Group`, `Grouped`, `Parts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound, remake
from seqdsl.ir.system import System, Tensor, sources

from .numbers import is_fixed

REDUCTIONS = ("sum", "max", "min")


@dataclass
class Group:
    """Tensors that one kernel computes, in order. `space` are all their indices, in the order of the widest tensor;
    `whole` those that are summed over: a program holds all their positions. Where one of them runs over the stream, it is
    `stream`, and a program takes several positions of what is not in its tile."""

    tensors: list[str]
    space: tuple[str, ...]
    whole: tuple[str, ...]
    after: set[str] = field(default_factory=set)  # what PyTorch computes from the group: nothing of it can come back
    parts: tuple[str, ...] = ()  # tensors of their own for what no kernel computes
    stream: str = ""
    moved: tuple[int, int] = (0, 0)  # over a stream: how many tensors of its size the kernel moves, and PyTorch would
    depth: Any = None  # inside a loop over depth, its step (`depth.Depth`)

    @property
    def column(self) -> str:
        """The index along which programs share a tile's work: the innermost that is not summed over; "" where a tile has
        no more than what is summed over."""
        if self.stream and self.space[-1] in (*self.whole, self.stream):
            return ""
        return next(i for i in reversed(self.space) if i not in self.whole)

    @property
    def tile(self) -> tuple[str, ...]:
        """The indices that a program has several positions of, in the order of memory."""
        return tuple(i for i in self.space if i in self.whole or i == self.column)


@dataclass(frozen=True)
class Grouped:
    """The system with foreign parts as tensors of their own, its groups, and the states that no group holds, and why."""

    system: System
    groups: tuple[Group, ...]
    kept: dict[str, str]


@dataclass
class Parts:
    """Of every equation of a system, what a kernel computes and what not."""

    system: System

    def plain(self, node: Node) -> bool:
        """Has the kernel text for this operator?"""
        raise NotImplementedError

    def whole_leaf(self, node: Node) -> bool:
        """Is it a leaf, or does the kernel treat it as one?"""
        return node.op == "read"

    def right(self, name: str) -> Node:
        """The right side of an equation."""
        found = self.system.tensors[name].rhs
        assert found is not None
        return found

    def hidden(self, name: str) -> Iterator[Node]:
        """The nodes of what PyTorch computes for an equation."""
        for part in self.foreign(self.right(name)):
            yield from walk(part)

    def foreign(self, node: Node) -> list[Node]:
        """The largest parts of an expression that no kernel computes."""
        found: dict[Node, None] = {}
        self._visit(node, found, {})
        return list(found)

    def inside(self, node: Node) -> list[Node]:
        """The nodes that a kernel computes or loads."""
        found: dict[Node, None] = {}
        self._visit(node, {}, found)
        return list(found)

    def _visit(self, node: Node, foreign: dict[Node, None], inside: dict[Node, None]) -> None:
        if is_fixed(node):
            inside[node] = None
        elif node in inside or node in foreign:
            return
        elif not self.plain(node):
            foreign[node] = None
        else:
            inside[node] = None
            for arg in node.args if not self.whole_leaf(node) else ():
                self._visit(arg, foreign, inside)

    def direct(self, tensor: Tensor) -> set[str]:
        """The tensors that an equation reads outside its foreign parts."""
        return {str(n.attr) for n in self.inside(self.right(tensor.name)) if n.op == "read"}

    def space(self, tensor: Tensor) -> tuple[str, ...]:
        """The indices of an equation and of its sums."""
        return tuple(dict.fromkeys((*tensor.indices, *self.whole(tensor))))

    def whole(self, tensor: Tensor) -> tuple[str, ...]:
        """The indices of its sums, and of what works along them."""
        inside = [n for n in self.inside(self.right(tensor.name)) if not self.whole_leaf(n)]
        return tuple(dict.fromkeys(i for n in inside for i in bound(n)))

    def arrange(self, group: Group) -> None:
        """The indices in the order of the largest tensor's memory."""
        reads = [n for name in group.tensors for n in self.inside(self.right(name)) if n.op == "read"]
        orders = [*(self.system.tensors[n].indices for n in group.tensors), *(tuple(str(a.attr) for a in n.args) for n in reads)]
        widest = max(orders, key=len)
        group.space = (*(i for i in group.space if i not in widest), *widest)
        group.whole = tuple(i for i in group.space if i in group.whole)

    def outlined(self, group: Group) -> list[Tensor]:
        """The group's equations with their foreign parts as reads of tensors, and those tensors."""
        made: dict[Node, Tensor] = {}
        changed: list[Tensor] = []
        taken = set(self.system.tensors)
        for name in group.tensors:
            tensor = self.system.tensors[name]
            parts = set(self.foreign(self.right(tensor.name)))
            for part in [n for n in walk(self.right(tensor.name)) if n in parts and n not in made]:
                label = build.numbered(f"{name}.part", taken)
                taken.add(label)
                indices = tuple(i for i in (*tensor.indices, *group.whole) if i in part.free)
                made[part] = Tensor(label, tuple(dict.fromkeys(indices)), part.dtype, "derived", part)
            if parts and tensor.rhs is not None:
                reading: dict[Node, Node] = {n: build.whole(t) for n, t in made.items()}
                changed.append(replace(tensor, rhs=self._exchanged(tensor.rhs, reading)))
        group.parts = tuple(t.name for t in made.values())
        return [*made.values(), *changed]

    def _exchanged(self, node: Node, done: dict[Node, Node]) -> Node:
        """An expression with its foreign parts exchanged, as `done` has them; not where a leaf is read, which may be at an
        index that is such a part elsewhere."""
        if node not in done:
            leaf = is_fixed(node) or self.whole_leaf(node) or not node.args
            args = node.args if leaf else tuple([self._exchanged(a, done) for a in node.args])
            done[node] = node if args == node.args else remake(node, args)
        return done[node]


def read_outside(system: System, group: Group) -> tuple[str, ...]:
    """The tensors of a group that something else needs."""
    wanted = {*system.outputs, *system.finals.values(), *(e.tensor for e in system.record or ())}
    for tensor in system.derived():
        if tensor.name not in group.tensors:
            wanted |= sources(system, tensor)
    return tuple(n for n in group.tensors if n in wanted)


def rights(system: System, group: Group) -> list[Node]:
    """The right sides of a group's equations."""
    return [t.rhs for t in (system.tensors[n] for n in group.tensors) if t.rhs is not None]
