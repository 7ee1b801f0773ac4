"""Feedback through micro-steps: time and the steps inside it become one axis, in order, for `chunk_solve`.

The triangular system of a chunk then has one row for each micro-step (`width` rows where several unknowns are read from
the same state), and knows nothing of where a step of time begins: its decay stands at the first micro-step.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import options

from . import expressions, narrow
from .context import Context
from .feedback import types
from .scans import blocks, chunk_argument, heads_and_columns, is_batched, product
from .values import ATOM, BATCH, Value, merge, with_ones


def solve(ctx: Context, node: Node) -> Value:
    """The unknowns [B, T, J, H, R, columns] of every micro-step."""
    w, u, x, a, start = narrow.operands(ctx, "chunk_solve", node)
    time, micro, *ranks = node.attr[0]
    rows: tuple[str, ...] = node.attr[1]
    heads, columns = heads_and_columns(ctx, {time, BATCH, micro, *ranks, *rows}, [w, u, a], [x, start])
    lead = (BATCH, time, micro)
    texts = [_steps(ctx, v, lead, [heads, tuple(ranks), rows]) for v in (w, u)]
    texts.append(_steps(ctx, x, lead, [heads, tuple(ranks), columns]))
    texts.append(_steps(ctx, a, lead, [heads, rows if set(rows) & set(a.dims) else ()]))
    texts.append(blocks(ctx, start, (BATCH,), [heads, rows, columns]) if node.args[-1] is not build.ZERO else "None")
    given = options(node)
    flags = [f"log={bool(given['log'])}", *(["after=True"] if given["after"] else [])]
    count = f"{ctx.length(time)} * {ctx.length(micro)}"
    flags += [*chunk_argument(ctx, given["chunk"], count), *types(ctx, node)]
    name = ctx.rows_name()
    dims = (*lead, *heads, *ranks, *columns)
    inner = [count, *(product(ctx, group) for group in (heads, tuple(ranks), columns))]
    arguments = [*texts, ", ".join(flags)]
    ctx.call(name, ctx.support("chunk_solve"), arguments, ", ".join([ctx.dim_text(BATCH), *inner]))
    wide = "" if is_batched(node, [w, u, x, a]) else f".expand({ctx.dim_text(BATCH)}, *{name}.shape[1:])"
    return Value(f"{name}{wide}.reshape({ctx.shape(dims)})", dims, node.dtype)


def _steps(ctx: Context, value: Value, lead: tuple[str, ...], groups: list[tuple[str, ...]]) -> str:
    """[B, T J, one dimension for each group]: spelled out along time and micro-steps, which become one."""
    if all(len(group) <= 1 for group in groups):
        steps = tuple(d for d in lead if d != BATCH)
        whole = expressions.full(ctx, value, ctx.ordered(merge(value.dims, steps)), value.dtype)
        slots = (*lead, *(group[0] if group else f"@{k}" for k, group in enumerate(groups)))
        return f"{with_ones(whole, slots).at(ATOM)}.flatten(1, 2)"
    whole = expressions.full(ctx, value, (*lead, *(d for group in groups for d in group)), value.dtype)
    batch, *count = (ctx.dim_text(d) for d in lead)
    shape = [batch, " * ".join(count), *(product(ctx, group) for group in groups)]
    return f"{whole.at(ATOM)}.reshape({', '.join(shape)})"
