"""Online normalisers: a nested function that computes one block of scores, and a call of `online_softmax`.

The scores, the guard and the factor that the values have along the rows are split (`operands`): what varies along the
rows only, the columns only, or neither is computed before, once, and is cut by the support function; what ties rows to
columns is computed inside, block by block. A tensor that has both, or an operator along one of them, is computed whole
before and cut both ways. Whatever needs a gradient is an operand: the backward runs the block's function again.
Entry point: `online`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from seqdsl.forms.online import row_index
from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound

from . import expressions
from .columns import columns_text
from .context import Block, Context, Stored
from .dot_products import dot_products
from .narrow import whole_input
from .operands import Operand, operands, outside
from .values import ATOM, BATCH, Value, with_ones


class Writing(Protocol):
    """A target that writes functions of its own for normalised reads, with the arguments of `online_softmax`."""

    def normal_form(self, ctx: Context, node: Node, shape: Shape) -> Node:
        """The same scores, or factor, as the target wants them."""

    def stand_in(
        self,
        ctx: Context,
        node: Node,
        shape: Shape,
        parts: tuple[Node, Node, list[Node]],
        given: list[Operand],
        values: Node | None,
    ) -> tuple[str, list[str]] | None:
        """The function's name, and more arguments; None where it has none."""


@dataclass(frozen=True)
class Shape:
    """Indices by role: leading ones, the rows' index, the summed ones, those that only the values have."""

    lead: tuple[str, ...]
    row: str
    columns: tuple[str, ...]
    values: tuple[str, ...]


def online(ctx: Context, node: Node) -> Value:
    """`normalised_read[s | guard](z, v)`, or `normaliser[s | guard](z)`. Guards around it do not matter: it is finite."""
    with ctx.guarded(()):
        key = _level_key(node) if node.op == "normaliser" else node
        if not ctx.fixed and key not in ctx.caches[0]:
            twin = _twin(ctx, node) if node.op == "normaliser" else None
            ctx.caches[0].setdefault(key, _online(ctx, node if twin is None else twin))
        return _online(ctx, node) if ctx.fixed else ctx.caches[0][key]


def _online(ctx: Context, node: Node) -> Value:
    scores, guard = node.args[0], node.args[-1]
    values = node.args[1] if node.op == "normalised_read" else None
    row = row_index(ctx.system, bound(node), scores, guard, values)
    if row is None or row in ctx.fixed or any(n in ctx.fixed for n in bound(node)):
        return expressions.emit(ctx, _literal(node))
    factor, plain = split_values(build.ONE if values is None else values, row)
    lead_set = (scores.free | guard.free | factor.free) - {row, *bound(node)} - set(ctx.fixed)
    lead = ctx.ordered(set(lead_set))
    extra = () if values is None else ctx.ordered(set(plain.free) - {row, *bound(node), *lead} - set(ctx.fixed))
    shape = Shape(lead, row, bound(node), extra)
    if ctx.target.online is None and not _level_wanted(ctx, node):
        found = dot_products(ctx, node, shape, factor, plain if values is not None else None)
        if found is not None:
            return found
    return _call(ctx, node, shape, factor, plain if values is not None else None)


def _literal(node: Node) -> Node:
    """The same as the equations say it."""
    if node.op == "normaliser":
        return build.make("logsumexp", *node.args, attr=node.attr)
    return build.written_out(node)


def _level_key(node: Node) -> object:
    return "level", node.args[0], node.args[-1], bound(node)


def _level_wanted(ctx: Context, node: Node) -> bool:
    """Does an equation want the level of these scores as well? It comes with the blocks."""
    nodes = (n for t in ctx.system.derived() if t.rhs is not None for n in walk(t.rhs))
    return any(n.op == "normaliser" and _level_key(n) == _level_key(node) for n in nodes)


def _twin(ctx: Context, node: Node) -> Node | None:
    """The read with the same scores and guard, if its values are there already: it gives the level as well."""
    if ctx.fixed:
        return None
    for tensor in ctx.system.derived():
        for other in walk(tensor.rhs) if tensor.rhs is not None else ():
            if other.op == "normalised_read" and _level_key(other) == _level_key(node):
                if all(str(r.attr) in ctx.places for r in walk(other) if r.op == "read"):
                    return other
    return None


def split_values(node: Node, row: str) -> tuple[Node, Node]:
    """(f, v) with node = f * v: the factors that vary along the rows, and those that do not."""
    if row not in node.free:
        return build.ONE, node
    if node.op == "mul":
        (f, v), (f2, v2) = split_values(node.args[0], row), split_values(node.args[1], row)
        return build.mul(f, f2), build.mul(v, v2)
    if node.op == "neg":
        f, v = split_values(node.args[0], row)
        return f, build.neg(v)
    if node.op == "div":
        f, v = split_values(node.args[0], row)
        below = node.args[1]
        return (build.make("div", f, below), v) if row in below.free else (f, build.make("div", v, below))
    if node.op == "where" and node.args[2] is build.ZERO:
        f, v = split_values(node.args[1], row)
        for fact in build.conjuncts(node.args[0]):
            if row in fact.free:
                f = build.where(fact, f, build.ZERO)
            else:
                v = build.where(fact, v, build.ZERO)
        return f, v
    return node, build.ONE


def _call(ctx: Context, node: Node, shape: Shape, factor: Node, plain: Node | None) -> Value:
    """The nested function, the call, and its results as values."""
    scores, guard = node.args[0], node.args[-1]
    facts = build.conjuncts(guard)
    own: Writing | None = ctx.target.online
    if own is not None:
        scores, factor = (own.normal_form(ctx, x, shape) for x in (scores, factor))
    parts = operands(ctx, [(scores, facts), (factor, facts), (guard, [])], shape.row, shape.columns)
    given = outside(ctx, parts, shape.row, shape.columns)
    values = _values(ctx, shape, plain, facts)
    name = ctx.names.fresh(f"{ctx.current}_scores")
    _function(ctx, name, shape, given, scores, factor, facts)
    stand_in = None if own is None else own.stand_in(ctx, node, shape, (scores, factor, facts), given, plain)
    function, more = (ctx.support("online_softmax"), []) if stand_in is None else stand_in
    limits = columns_text(ctx, shape.row, shape.columns[0], guard)
    read, level = ctx.names.fresh(f"{ctx.current}_read"), ctx.names.fresh(f"{ctx.current}_level")
    lead = (BATCH, *shape.lead)
    ctx.block.add(f"{read}, {level} = {function}(")
    ctx.block.add(f"    {name},")
    ctx.block.add(f"    [{', '.join(o.text(shape.row, shape.columns[0]) for o in given)}],")
    ctx.block.add(f"    {values},")
    ctx.block.add(f"    ({', '.join(ctx.dim_text(d) for d in lead)}{',' if len(lead) == 1 else ''}),")
    ctx.block.add(f"    {ctx.length(shape.row)},")
    if limits:
        ctx.block.add(f"    columns=lambda first, last: {limits},")
    if len(shape.columns) > 1:
        ctx.block.add(f"    joint={len(shape.columns)},")
    for argument in more:
        ctx.block.add(f"    {argument},")
    dims = (*lead, shape.row)
    ctx.block.add(f")  # [{', '.join(ctx.dim_text(d) for d in (*dims, *shape.values))}]")
    known = Value(level, dims, "real")
    if factor is build.ONE and not ctx.fixed:
        ctx.caches[0][_level_key(node)] = known
        ctx.caches[0][node] = _restored(ctx, Value(read, dims, "real"), shape.values)
    if node.op == "normaliser":
        return known
    if node in ctx.caches[0]:
        return ctx.caches[0][node]
    return _restored(ctx, Value(read, dims, "real"), shape.values)


def _restored(ctx: Context, read: Value, values: tuple[str, ...]) -> Value:
    if len(values) == 1:
        return Value(read.text, (*read.dims, *values), "real")
    if not values:
        return Value(f"{read.text}.squeeze(-1)", read.dims, "real")
    lengths = ", ".join(ctx.dim_text(d) for d in values)
    return ctx.bind(f"{ctx.current}_part", Value(f"{read.text}.unflatten(-1, ({lengths}))", (*read.dims, *values)))


def _values(ctx: Context, shape: Shape, plain: Node | None, facts: list[Node]) -> str:
    """[*lead, columns.., V]; without any, a width of 0: only the level is wanted."""
    if plain is None:
        lengths = ", ".join(["1"] * (1 + len(shape.lead)) + [ctx.length(n) for n in shape.columns])
        return f"torch.zeros({lengths}, 0, dtype=dtype, device=device)"
    with ctx.under(*facts):
        narrow = None if ctx.target.online is None else whole_input(ctx, plain)
        value = expressions.emit(ctx, plain) if narrow is None else narrow
    value = expressions.tensor(ctx, expressions.convert(ctx, value, "real"), "real")
    value = Value(f"{value.at(ATOM)}.to(dtype)", value.dims, "real") if value.weight else value
    value = expressions.spelled(ctx, value, (*shape.columns, *(shape.values if len(shape.values) != 1 else ())), "real")
    dims = (BATCH, *shape.lead, *shape.columns)
    if len(shape.values) == 1:
        return with_ones(value, (*dims, *shape.values)).text
    if not shape.values:
        return with_ones(value, (*dims, "@one")).text
    return f"{with_ones(value, (*dims, *shape.values)).at(ATOM)}.flatten(-{len(shape.values)})"


def _function(
    ctx: Context,
    name: str,
    shape: Shape,
    given: list[Operand],
    scores: Node,
    factor: Node,
    facts: list[Node],
) -> None:
    """`def o_scores(q, k, t, s)`: the scores of a block, where they count, and the factor."""
    before = ctx.block, ctx.hoisted, ctx.caches, ctx.order, ctx.places, ctx.lengths
    ctx.block = Block(before[0].indent + 1)
    ctx.hoisted = {o.node: o.inner for o in given if o.table is None}  # what loops have found is whole, not a block
    ctx.places = {**ctx.places, **{str(o.node.attr): Stored(o.inner) for o in given if o.table is not None}}
    cut = {shape.row, *shape.columns}
    kept: dict[object, Value] = {
        key: value
        for key, value in before[2][0].items()
        if isinstance(key, tuple) and key[0] == "positions" and not {*value.dims} & cut
    }
    ctx.caches = [kept]
    ctx.lengths = {**ctx.lengths, **lengths_inside(given, (shape.row, shape.columns[0]))}
    dims = (BATCH, *shape.lead, shape.row, *shape.columns)
    ctx.order = [d for d in dims if d != BATCH]
    results = []
    with ctx.under(*facts):
        results.append(_inside(ctx, scores, dims, shape))
    mask = expressions.condition(ctx, facts)
    if mask is None:
        results.append("None")
    else:
        mask = expressions.tensor(ctx, mask, "bool")
        if len(shape.columns) > 1:
            mask = expressions.spelled(ctx, mask, shape.columns, "bool")
        results.append(with_ones(mask, dims).text)
    if factor is build.ONE:
        results.append("None")
    else:
        with ctx.under(*facts):
            results.append(_inside(ctx, factor, dims, shape))
    ctx.block.add(f"return {', '.join(results)}")
    body = ctx.block.lines
    ctx.block, ctx.hoisted, ctx.caches, ctx.order, ctx.places, ctx.lengths = before
    parameters = [*(o.inner.text for o in given), *(f"{v}={v}" for v in ctx.variables_in(body))]
    listed = ", ".join(d if d in cut else ctx.dim_text(d) for d in dims)
    note = f"# a block of {shape.row} and {', '.join(shape.columns)}: scores [{listed}], where they count, their factor"
    ctx.block.add(f"def {name}({', '.join(parameters)}):  {note}")
    ctx.block.lines.extend(body)


def _inside(ctx: Context, node: Node, dims: tuple[str, ...], shape: Shape) -> str:
    value = expressions.convert(ctx, expressions.emit(ctx, node), "real")
    value = expressions.tensor(ctx, value, "real")
    if len(shape.columns) > 1:
        value = expressions.spelled(ctx, value, shape.columns, "real")
    return with_ones(value, dims).text


def lengths_inside(given: list[Operand], names: tuple[str, ...]) -> dict[str, str]:
    """How long the cut indices are inside a block: read off the operands."""
    found = {}
    for index in names:
        for o in given:
            if index in o.inner.dims and o.table is None:
                found[index] = f"{o.inner.text}.shape[{o.inner.dims.index(index)}]"
                break
    return found
