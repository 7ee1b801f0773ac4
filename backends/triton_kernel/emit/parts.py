"""Equations of which a kernel computes some parts and PyTorch the others, which become tensors of their own.

What a kernel has text for is said by whoever groups equations: `Parts.plain`. Entry points: `Group`, `Grouped`, `Parts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound, remake
from seqdsl.ir.system import System, Tensor

from .numbers import is_fixed

REDUCTIONS = ("sum", "max", "min")


@dataclass
class Group:
    """Tensors that one kernel computes, in order. `space` are all their indices, in the order of the widest tensor;
    `whole` those that are summed over: a program holds all their positions."""

    tensors: list[str]
    space: tuple[str, ...]
    whole: tuple[str, ...]
    after: set[str] = field(default_factory=set)  # what PyTorch computes from the group: nothing of it can come back
    parts: tuple[str, ...] = ()  # tensors of their own for what no kernel computes

    @property
    def column(self) -> str:
        """The index along which programs share a tile's work: the innermost that is not summed over."""
        return next(i for i in reversed(self.space) if i not in self.whole)


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
            for arg in node.args if node.op != "read" else ():
                self._visit(arg, foreign, inside)

    def direct(self, tensor: Tensor) -> set[str]:
        """The tensors that an equation reads outside its foreign parts."""
        return {str(n.attr) for n in self.inside(self.right(tensor.name)) if n.op == "read"}

    def space(self, tensor: Tensor) -> tuple[str, ...]:
        """The indices of an equation and of its sums."""
        return tuple(dict.fromkeys((*tensor.indices, *self.whole(tensor))))

    def whole(self, tensor: Tensor) -> tuple[str, ...]:
        """The indices of its sums, and of what works along them."""
        return tuple(dict.fromkeys(i for n in self.inside(self.right(tensor.name)) for i in bound(n)))

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
            if parts:
                changed.append(replace(tensor, rhs=with_reads(self.right(tensor.name), made)))
        group.parts = tuple(t.name for t in made.values())
        return [*made.values(), *changed]


def with_reads(node: Node, made: dict[Node, Tensor]) -> Node:
    """Reads of tensors in the place of what they are made of."""
    names = {part: build.read(t.name, [build.index(i) for i in t.indices], t.dtype) for part, t in made.items()}

    def replaced(node: Node) -> Node:
        if node not in names:
            names[node] = remake(node, tuple(replaced(a) for a in node.args)) if node.args else node
        return names[node]

    return replaced(node)
