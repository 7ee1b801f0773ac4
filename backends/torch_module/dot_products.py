"""A softmax whose scores are inner products is torch's own attention, which has fused kernels for it.

Found from the scores, whatever they are called: a product of what varies along the rows, what varies along the columns,
and sums of such products over indices of their own, under no guard or `s <= t`. Everything else is evaluated block by
block (`online`). Entry point: `dot_products`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqdsl.algebra.monomials import factors
from seqdsl.ir import build
from seqdsl.ir.node import Node, reads
from seqdsl.ir.ops import bound

from . import expressions
from .context import Context
from .names import tuple_text
from .values import ATOM, BATCH, Value, plain, with_ones

if TYPE_CHECKING:
    from .online import Shape


def dot_products(ctx: Context, node: Node, shape: Shape, factor: Node, values: Node | None) -> Value | None:
    """The read as a call of `dot_product_attention`; None where the scores, or the guard, are others."""
    if node.op != "normalised_read" or values is None or factor is not build.ONE or len(shape.columns) != 1:
        return None
    (column,) = shape.columns
    guards = build.conjuncts(node.args[-1])
    causal = guards == [build.make("le", build.index(column), build.index(shape.row))]
    if len(shape.values) != 1 or (guards and not causal) or _is_late(ctx, column):
        return None
    sides = _sides(node.args[0], shape.row, column)
    if sides is None or node.args[0].dtype != "real" or values.dtype == "complex":
        return None
    scale, inner, q, k = sides
    if set(inner) & {*shape.lead, *shape.values}:
        return None
    lead = (BATCH, *shape.lead)
    texts = [_operand(ctx, q, lead, (shape.row, *inner)), _operand(ctx, k, lead, (column, *inner))]
    texts.append(_operand(ctx, values, lead, (column, *shape.values)))
    first = "past" if ctx.past and ctx.on_stream(shape.row) and ctx.is_new(shape.row) else "0"
    flags = [f"scale={expressions.emit(ctx, scale).text}"] + ([f"first={first}"] if causal else [])
    read = ctx.names.fresh(f"{ctx.current}_read")
    given = (*lead, shape.row, *shape.values)
    arguments = [*texts, tuple_text(map(ctx.dim_text, lead)), *flags]
    ctx.call(read, ctx.support("dot_product_attention"), arguments, ctx.shape(given))
    return Value(read, given, "real")


def _operand(ctx: Context, node: Node, lead: tuple[str, ...], own: tuple[str, ...]) -> str:
    """[*lead, rows or columns, width]"""
    value = expressions.tensor(ctx, expressions.convert(ctx, plain(expressions.emit(ctx, node)), "real"), "real")
    value = with_ones(expressions.spelled(ctx, value, own, "real"), (*lead, *own))
    return value.text if len(own) == 2 else f"{value.at(ATOM)}.flatten(-{len(own) - 1})"


def _is_late(ctx: Context, column: str) -> bool:
    """Are the columns the new positions alone, after others?"""
    return ctx.past and ctx.on_stream(column) and ctx.is_new(column)


def _sides(scores: Node, row: str, column: str) -> tuple[Node, tuple[str, ...], Node, Node] | None:
    """(the scale, the summed indices, what varies along the rows, what varies along the columns)."""
    terms = factors(scores)
    tied = [f for f in terms if {row, column} <= f.free]
    if len(tied) != 1 or tied[0].op != "sum" or tied[0].args[1] is not build.TRUE:
        return None
    rest = [f for f in terms if f is not tied[0]] + factors(tied[0].args[0])
    if any({row, column} <= f.free for f in rest):
        return None
    scale = [f for f in rest if not f.free and not reads(f)]
    columns = [f for f in rest if column in f.free]
    rows = [f for f in rest if f not in scale and f not in columns]
    return build.at_least_real(build.product(scale)), bound(tied[0]), build.product(rows), build.product(columns)
