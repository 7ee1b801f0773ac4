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

from . import contractions, expressions, intervals, reads
from .context import Context, Source, Stored
from .narrow import whole_input
from .table import UNSAFE, varies
from .values import Value, plain

Facts = tuple[Node, ...]


@dataclass(frozen=True)
class Part:
    """A node to be emitted before, and what holds where it is wanted. A `table` is a whole tensor that the block reads
    at pairs: its indices that are cut, each with the index of the block."""

    node: Node
    facts: Facts
    table: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True)
class Operand:
    """A part as the argument `outer` of the call and the parameter `inner` of the block's function."""

    node: Node
    outer: Value
    inner: Value
    table: tuple[tuple[str, str], ...] | None

    def text(self, row: str, column: str) -> str:
        """`(q, 1, None)`: the operand, and which of its dimensions are the rows and the columns."""
        names = {i: i for i in self.outer.dims} if self.table is None else {i: own for own, i in self.table}
        dims = self.outer.dims
        cut = [dims.index(names[i]) if names.get(i) in dims else None for i in (row, column)]
        return f"({self.outer.text}, {cut[0]}, {cut[1]})"


def operands(ctx: Context, nodes: Iterable[tuple[Node, list[Node]]], row: str, columns: tuple[str, ...]) -> list[Part]:
    """The parts of some expressions, each below its own facts, in the order in which they are met."""
    found: dict[Node, Part] = {}
    search = _Search(ctx, row, columns, found)
    for node, facts in nodes:
        search.visit(node, tuple(facts))
    return list(found.values())


@dataclass(frozen=True)
class _Search:
    ctx: Context
    row: str
    columns: tuple[str, ...]
    found: dict[Node, Part]

    def visit(self, node: Node, facts: Facts) -> None:
        """Collect the largest parts below a node that can be computed before the blocks."""
        if node in self.found:
            return
        wide = {self.row, *self.columns}
        tied = self.row in node.free and bool(node.free & {*self.columns})
        if node.op in ("const", "size", "option", "first") or not tied and _static(self.ctx, node):
            return
        cuts = self._table(node) if node.op == "read" and tied else None
        key = build.read(str(node.attr), [], node.dtype)  # the tensor as a whole
        if cuts is not None and self.found.setdefault(key, Part(key, (), cuts)).table == cuts:
            for subscript in node.args:
                if subscript.op != "index":
                    self.visit(subscript, facts)
            return
        whole = bool(OPS[node.op].binding) and bool({*bound(node), *made(node)} & wide)
        if whole or node.op in ("read", "index") or not tied and is_safe(node, facts):
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
            for end in _ends(self.ctx, node):
                self.visit(end, facts)
        else:
            for arg in node.args:
                self.visit(arg, facts)

    def _table(self, node: Node) -> tuple[tuple[str, str], ...] | None:
        """For a tensor that is read at positions that pairs give (a bias by distance, a block by s // m): which of its
        indices a block cuts, and by which of its own. None where it has to be computed at every pair before."""
        system = self.ctx.system
        tensor, place = system.tensors[str(node.attr)], self.ctx.places.get(str(node.attr))
        axes = {system.stream, *(system.axis(i) for i in (self.row, *self.columns))}
        cuts = []
        if not isinstance(place, Stored) or tensor.edges or all(a.op == "index" for a in node.args):
            return None
        for own, subscript in zip(tensor.indices, node.args, strict=True):
            if subscript.op == "index" and subscript.attr in (self.row, *self.columns):
                elsewhere = any(subscript.attr in a.free for a in node.args if a is not subscript)
                source = Source(place.value, tensor.indices, tensor.edges, tensor.name, full=place.full)
                same = system.axis(own) == system.axis(str(subscript.attr))
                same = same and reads.direct(self.ctx, source, own, str(subscript.attr))
                if elsewhere or not same or subscript.attr in self.columns[1:]:
                    return None
                cuts.append((own, str(subscript.attr)))
            elif system.axis(own) in axes:
                return None  # along the stream a read has a history
        return tuple(cuts)


def _ends(ctx: Context, node: Node) -> list[Node]:
    """What a reduction asks of its index: the guard, or of a running sum the ends of its interval."""
    if intervals.is_product(node):
        products = [[node.args[0]]]
    elif node.op in ("sum", "mean"):
        products = contractions.summed(ctx, node)
    else:
        return [node.args[-1]]
    asked: list[Node | None] = []
    for factors in products:
        found = intervals.interval(ctx, node, build.conjuncts(node.args[1]), factors)
        asked += [node.args[1]] if found is None else [found.begin, found.end, found.width, *found.others]
    return [part for part in asked if part is not None]


def _static(ctx: Context, node: Node) -> bool:
    """Is it a number that Python knows at each call?"""
    return not node.free - set(ctx.fixed) and not any(n.op == "read" or OPS[n.op].binding for n in walk(node))


def is_safe(node: Node, facts: Facts) -> bool:
    """Do the facts that can be told where the part is computed make each operator safe that needs them?"""
    if not any(n.op in UNSAFE and varies(n) for n in walk(node)):
        return True
    return all(f.free <= node.free for f in facts if f.free & node.free)


def outside(ctx: Context, parts: list[Part], row: str, columns: tuple[str, ...]) -> list[Operand]:
    """The parts, computed and named; each parameter's name is its own."""
    found: list[Operand] = []
    taken: dict[str, Value] = {}
    for part in parts:
        if part.table is not None:
            place = ctx.place(str(part.node.attr))
            assert isinstance(place, Stored)
            value = plain(place.value)
            wanted = str(part.node.attr)
        else:
            with ctx.under(*part.facts):
                narrow = None if ctx.target.online is None else whole_input(ctx, part.node)
                value = plain(expressions.emit(ctx, part.node) if narrow is None else narrow)
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
