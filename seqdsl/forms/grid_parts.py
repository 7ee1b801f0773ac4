"""What the step of a grid is computed from besides the states, as tensors over the grid.

The largest parts without a state that are no wider than one of their operands become equations of their own, below the
conditions of the choices around them: they are computed at all cells at once, before the fronts. Reads of tensors at the
cell itself stay reads. Entry point: `Parts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from seqdsl.algebra.affine import NoMatch
from seqdsl.ir import build
from seqdsl.ir.dependence import build_not
from seqdsl.ir.node import Node, read_names, walk
from seqdsl.ir.ops import OPS, bound, remake
from seqdsl.ir.system import System, Tensor

Facts = tuple[Node, ...]
_NUMBERS = frozenset(("const", "size", "option", "first"))


@dataclass
class Parts:
    """The parts of a nest's equations: `made` are their tensors; `here` says where a front's cell lies on the grid."""

    system: System
    states: tuple[str, ...]
    axes: frozenset[str]
    here: Mapping[str, Node]
    made: dict[Node, Tensor] = field(default_factory=dict)

    def taken_out(self, tensor: Tensor) -> Node:
        """The right side of a tensor, its parts replaced by reads at the cell of a front; reads of states stay."""
        assert tensor.rhs is not None
        return self._visit(tensor, tensor.rhs, (), frozenset())

    def _visit(self, tensor: Tensor, node: Node, facts: Facts, inner: frozenset[str]) -> Node:
        """`inner` are the indices that binders around the node bind."""
        if node.op in _NUMBERS or node.op == "index" and node.attr not in self.axes:
            return node
        if not any(n in self.states for n in read_names(node)):
            if self._plain(node):
                return build.substitute(node, self.here)
            if self._fits(node, facts, inner):
                return self._part(tensor, node, facts)
        if node.op == "read" and node.attr in self.states:
            own = self.system.tensors[str(node.attr)].indices
            at = [a if i in self.axes else self._visit(tensor, a, facts, inner) for i, a in zip(own, node.args, strict=True)]
            return build.read(str(node.attr), at, node.dtype)
        if node.op in ("read", "index"):
            raise NoMatch(f"`{node!r}` is read in a sum around a state, away from the cell")
        return remake(node, self._operands(tensor, node, facts, inner))

    def _operands(self, tensor: Tensor, node: Node, facts: Facts, inner: frozenset[str]) -> tuple[Node, ...]:
        if node.op == "where":
            condition, a, b = node.args
            yes = (*facts, *build.conjuncts(condition))
            no = (*facts, *build.conjuncts(build_not(condition)))
            return (
                self._visit(tensor, condition, facts, inner),
                self._visit(tensor, a, yes, inner),
                self._visit(tensor, b, no, inner),
            )
        own = bound(node)
        if set(own) & self.axes:
            raise NoMatch(f"`{node.op}` over `{', '.join(own)}` holds a state")
        below = inner | frozenset(own)
        if OPS[node.op].binding in ("reduce", "along"):
            *bodies, guard = node.args
            held = (*facts, *build.conjuncts(guard))
            return (*(self._visit(tensor, b, held, below) for b in bodies), self._visit(tensor, guard, facts, below))
        return tuple(self._visit(tensor, a, facts, below) for a in node.args)

    def _plain(self, node: Node) -> bool:
        """Is it a read of a tensor at the cell itself, or one that no cell decides?"""
        if node.op != "read":
            return False
        tensor = self.system.tensors[str(node.attr)]
        for own, subscript in zip(tensor.indices, node.args, strict=True):
            if own in self.axes or subscript.free & self.axes:
                if subscript is not build.index(own):
                    return False
            elif read_names(subscript) or tensor.edges and subscript.op != "index":
                return False
        return True

    def _fits(self, node: Node, facts: Facts, inner: frozenset[str]) -> bool:
        """May it be a tensor of its own: no wider than its operands, under conditions that no state decides?"""
        if node.free & inner or not (read_names(node) or node.free & self.axes):
            return False
        told = all(not any(n in self.states for n in read_names(f)) and not f.free & inner for f in facts)
        narrow = bool(OPS[node.op].binding) or not node.args or any(node.free <= a.free for a in node.args)
        return node.op in ("read", "index") or told and narrow

    def _part(self, tensor: Tensor, node: Node, facts: Facts) -> Node:
        """A read of the part's tensor at the cell; where its conditions do not hold it is 0."""
        body = build.where(build.every(() if _harmless(node) else dict.fromkeys(facts)), node, build.zero(node.dtype))
        if body not in self.made:
            name = build.fresh(f"{tensor.name}.part{len(self.made) or ''}", self.system.tensors)
            order = [*tensor.indices, *sorted(body.free)]
            indices = tuple(dict.fromkeys(i for i in order if i in body.free))
            self.made[body] = Tensor(name, indices, body.dtype, "derived", body)
        made = self.made[body]
        return build.substitute(build.whole(made), self.here)


def _harmless(node: Node) -> bool:
    """Has it a value, and a derivative, wherever it is read?"""
    return all(n.op in _NUMBERS or n.op in ("index", "read", "add", "sub", "mul") for n in walk(node))
