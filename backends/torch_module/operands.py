"""What a block of scores is computed from: the parts of an expression that its rows and columns do not tie together.

Architecture invariant: a part is emitted before the block's function, under the guards that hold for it; a part that
those guards could not make safe (a logarithm where only pairs of positions say that it is meant) is taken apart.
Entry points: `operands`, `outside`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from seqdsl.ir import build
from seqdsl.ir.dependence import build_not
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound, made
from seqdsl.ir.system import System

from . import expressions
from .context import Context, Stored
from .reads import unweighted
from .table import UNSAFE
from .values import Value

Facts = tuple[Node, ...]


@dataclass(frozen=True)
class Part:
    """A node to be emitted before, and what holds where it is wanted. A `table` is read at pairs inside the block."""

    node: Node
    facts: Facts
    table: bool = False


@dataclass(frozen=True)
class Operand:
    """A part as the argument `outer` of the call and the parameter `inner` of the block's function."""

    node: Node
    outer: Value
    inner: Value
    table: bool

    def text(self, row: str, column: str) -> str:
        """`(q, 1, None)`: the operand, and which of its dimensions are the rows and the columns."""
        cut = [None if self.table or i not in self.outer.dims else self.outer.dims.index(i) for i in (row, column)]
        return f"({self.outer.text}, {cut[0]}, {cut[1]})"


def operands(ctx: Context, nodes: Iterable[tuple[Node, list[Node]]], row: str, columns: tuple[str, ...]) -> list[Part]:
    """The parts of some expressions, each below its own facts, in the order in which they are met."""
    found: dict[Node, Part] = {}
    search = _Search(ctx, row, frozenset(columns), found)
    for node, facts in nodes:
        search.visit(node, tuple(facts))
    return list(found.values())


@dataclass(frozen=True)
class _Search:
    ctx: Context
    row: str
    columns: frozenset[str]
    found: dict[Node, Part]

    def visit(self, node: Node, facts: Facts) -> None:
        """Collect the largest parts below a node that can be computed before the blocks."""
        if node in self.found:
            return
        wide = {self.row, *self.columns}
        tied = self.row in node.free and bool(node.free & self.columns)
        if node.op in ("const", "size", "option", "first") or not tied and _static(self.ctx, node):
            return
        if node.op == "read" and tied and self._is_table(node):
            key = build.read(str(node.attr), [], node.dtype)  # the tensor as a whole
            self.found.setdefault(key, Part(key, (), table=True))
            for subscript in node.args:
                self.visit(subscript, facts)
            return
        whole = bool(OPS[node.op].binding) and bool({*bound(node), *made(node)} & wide)
        if whole or node.op in ("read", "index") or not tied and _safe(node, facts):
            self.found[node] = Part(node, facts)
            return
        self._below(node, facts)

    def _below(self, node: Node, facts: Facts) -> None:
        if node.op == "where":
            condition, a, b = node.args
            self.visit(condition, facts)
            self.visit(a, (*facts, *build.conjuncts(condition)))
            self.visit(b, (*facts, *build.conjuncts(build_not(condition))))
        elif OPS[node.op].binding in ("reduce", "along"):
            *bodies, guard = node.args
            for body in bodies:
                self.visit(body, (*facts, *build.conjuncts(guard)))
            self.visit(guard, facts)
        else:
            for arg in node.args:
                self.visit(arg, facts)

    def _is_table(self, node: Node) -> bool:
        """A tensor that has neither axis, and is read at positions that pairs give: gathered inside the block."""
        system = self.ctx.system
        axes = {system.axis(i) for i in (self.row, *self.columns)}
        tensor = system.tensors[str(node.attr)]
        place = self.ctx.places.get(tensor.name)
        own = {system.axis(i) for i in tensor.indices}
        if any(a.op == "index" and a.attr in (self.row, *self.columns) for a in node.args):
            return False  # a foreign index: the dimension itself is cut
        return isinstance(place, Stored) and not tensor.edges and not own & axes and system.stream not in own


def _static(ctx: Context, node: Node) -> bool:
    """Is it a number that Python knows at each call?"""
    return not node.free - set(ctx.fixed) and not any(n.op == "read" or OPS[n.op].binding for n in walk(node))


def _safe(node: Node, facts: Facts) -> bool:
    """Do the facts that can be told where the part is computed make each operator safe that needs them?"""
    if not any(n.op in UNSAFE and _varies(n) for n in walk(node)):
        return True
    return all(f.free <= node.free for f in facts if f.free & node.free)


def _varies(node: Node) -> bool:
    """Is the operand that could be outside the operator's domain data?"""
    which = {"div": (1,), "pow": (0,), "logaddexp": ()}.get(node.op, (0,))
    return any(n.op in ("read", "index") for k in which for n in walk(node.args[k]))


def outside(ctx: Context, parts: list[Part], row: str, columns: tuple[str, ...]) -> list[Operand]:
    """The parts, computed and named; each parameter's name is its own."""
    found: list[Operand] = []
    taken: dict[str, Value] = {}
    for part in parts:
        if part.table:
            place = ctx.places[str(part.node.attr)]
            assert isinstance(place, Stored)
            value = unweighted(place.value)
            wanted = str(part.node.attr)
        else:
            with ctx.under(*part.facts):
                value = unweighted(expressions.emit(ctx, part.node))
            if value.static:
                continue
            wanted = str(part.node.attr) if part.node.op in ("index", "read") else ""
        if not value.text.isidentifier() or value.text.startswith("self"):
            value = ctx.bind(_name(ctx.system, wanted) or expressions.temporary(ctx, part.node), value)
        wanted = wanted if part.node.op == "index" and wanted.isidentifier() else value.text
        if wanted in taken or wanted != value.text and wanted in ctx.names.taken:
            wanted = ctx.names.fresh(wanted)
        taken[wanted] = value
        found.append(Operand(part.node, value, Value(wanted, value.dims, value.dtype), part.table))
    return found


def _name(system: System, wanted: str) -> str:
    return wanted.rpartition(".")[2].rpartition("@")[0] or wanted if wanted else ""
