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
from .scans import blocks, product
from .values import ATOM, BATCH, Value, merge, with_ones


def solve(ctx: Context, node: Node) -> Value:
    """The unknowns [B, T, J, H, R, columns] of every micro-step."""
    w, u, x, a, start = narrow.operands(ctx, "chunk_solve", node)
    time, micro, *ranks = node.attr[0]
    rows: tuple[str, ...] = node.attr[1]
    along = {time, BATCH, micro, *ranks, *rows}
    every = [d for d in merge(x.dims, w.dims, u.dims, a.dims, start.dims) if d not in along]
    heads = ctx.ordered(tuple(d for d in every if d in {*w.dims, *u.dims, *a.dims}))
    columns = ctx.ordered(tuple(d for d in every if d not in heads))
    lead = (BATCH, time, micro)
    texts = [_steps(ctx, v, lead, [heads, tuple(ranks), rows]) for v in (w, u)]
    texts.append(_steps(ctx, x, lead, [heads, tuple(ranks), columns]))
    texts.append(_steps(ctx, a, lead, [heads, rows if set(rows) & set(a.dims) else ()]))
    texts.append(blocks(ctx, start, (BATCH,), [heads, rows, columns]) if node.args[-1] is not build.ZERO else "None")
    given = options(node)
    flags = [f"log={bool(given['log'])}", *(["after=True"] if given["after"] else [])]
    flags += [f"chunk={given['chunk']}"] if given["chunk"] not in (0, 64) else []
    count = f"{ctx.length(time)} * {ctx.length(micro)}"
    flags += [f"chunk={ctx.helper('_whole_chunk')}({count})"] if given["chunk"] == 0 else []
    flags += types(ctx, node)
    name = ctx.names.fresh(f"{ctx.current}_rows" if not ctx.current.isidentifier() else ctx.current)
    dims = (*lead, *heads, *ranks, *columns)
    ctx.block.add(f"{name} = {ctx.support('chunk_solve')}(")
    for text in [*texts, ", ".join(flags)]:
        ctx.block.add(f"    {text},")
    inner = [count, *(product(ctx, group) for group in (heads, tuple(ranks), columns))]
    ctx.block.add(f")  # [{', '.join([ctx.dim_text(BATCH), *inner])}]")
    shape = ", ".join(ctx.dim_text(d) for d in dims)
    batched = node.args[-1] is not build.ZERO or any(BATCH in v.dims for v in (w, u, x, a))
    wide = "" if batched else f".expand({ctx.dim_text(BATCH)}, *{name}.shape[1:])"
    return Value(f"{name}{wide}.reshape({shape})", dims, node.dtype)


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
