"""Coupled states, `block_solve`, `block_read` and `block_state`, as calls of `support` functions.

As in `scans`, with the parts as a dimension of their own: rows are keys, what only the writes have is a value, and every
other index a head. `block_state` is the other result of a read's call.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, options

from . import expressions
from .context import Context
from .scans import blocks, chunk_argument, heads_and_columns, is_batched, operand, restored
from .values import BATCH, Value


def block(ctx: Context, node: Node) -> Value:
    """Any of the three."""
    if node.op == "block_solve":
        return _solve(ctx, node)
    if node.op == "block_read":
        return _read(ctx, node)
    found = ctx.caches[0].get(_shared(ctx, node))
    return found if found is not None else _call(ctx, node, None)[1]


def _indices(node: Node) -> tuple[str, str, str, tuple[str, ...]]:
    """The time, the part, the part that is read, the rows."""
    if OPS[node.op].binding == "last":
        (time, read), (part, *rows) = node.attr[0], node.attr[1]
    else:
        (time, *_), (part, read, *rows) = node.attr[0], node.attr[1]
    return time, part, read, tuple(rows)


def _shared(ctx: Context, node: Node) -> tuple[object, ...]:
    """What a read and a state have in common: the writes, the decay, the start, the rows; in loops, where these stand."""
    return ("block", node.args[-4:], _indices(node), options(node)["log"], ctx.standing)


def _spelled(ctx: Context, value: Value, names: Sequence[str]) -> Value:
    return expressions.spelled(ctx, value, tuple(names), value.dtype)


def _solve(ctx: Context, node: Node) -> Value:
    """The feedback y, over heads, ranks and columns: columns are what neither the reads nor the decay vary along."""
    w, u, x, a, start = (operand(ctx, n) for n in node.args)
    time, part, read, rows = _indices(node)
    ranks: tuple[str, ...] = tuple(node.attr[0][1:])
    heads, columns = heads_and_columns(ctx, {time, BATCH, *ranks, part, read, *rows}, [w, u, a], [x, start])
    lead = (BATCH, time)
    w, x, a = _spelled(ctx, w, rows), _spelled(ctx, x, (time, *ranks, *columns)), _spelled(ctx, a, (part, read))
    texts = [blocks(ctx, v, lead, [heads, ranks, (part,), rows]) for v in (w, u)]
    texts.append(blocks(ctx, x, lead, [heads, ranks, columns]))
    texts.append(blocks(ctx, a, lead, [heads, (part,), (read,), rows if set(rows) & set(a.dims) else ()]))
    texts.append(_start(ctx, node, start, [heads, (part,), rows, columns]))
    name = ctx.rows_name()
    arguments = [*texts, ", ".join(_flags(ctx, node, time))]
    ctx.call(name, ctx.support("block_solve"), arguments, ctx.shape((*lead, *heads, *ranks, *columns)))
    return restored(ctx, name, lead, [heads, ranks, columns], node.dtype, is_batched(node, [w, u, x, a]))


def _start(ctx: Context, node: Node, start: Value, groups: list[tuple[str, ...]]) -> str:
    return "None" if node.args[-1] is build.ZERO else blocks(ctx, start, (BATCH,), groups)


def _flags(ctx: Context, node: Node, time: str) -> list[str]:
    given = options(node)
    flags = [f"log={bool(given['log'])}", *(["strict=True"] if given.get("strict") else [])]
    return [*flags, *chunk_argument(ctx, given.get("chunk", 64), ctx.length(time))]


def _read(ctx: Context, node: Node) -> Value:
    read, final = _call(ctx, node, operand(ctx, node.args[0]))
    own = {d for n in node.args[1:] for d in n.free}
    for d in [d for d in final.dims if d in node.args[0].free and d not in own]:
        # The state does not vary along what only the reads have.
        text = f"{final.at(100)}.select({final.dims.index(d)}, 0)"
        final = Value(text, tuple(x for x in final.dims if x != d), node.dtype)
    ctx.caches[0].setdefault(_shared(ctx, node), final)
    return read if read.text.isidentifier() else ctx.bind(f"{ctx.current}_part", read)


def _call(ctx: Context, node: Node, q: Value | None) -> tuple[Value, Value]:
    """The reads and the final state."""
    k, v, a, start = (operand(ctx, n) for n in node.args[-4:])
    q = k if q is None else q
    time, part, read, rows = _indices(node)
    heads, columns = heads_and_columns(ctx, {time, BATCH, part, read, *rows}, [q, k, a], [v, start])
    lead = (BATCH, time)
    k, v, a = _spelled(ctx, k, (time, *rows)), _spelled(ctx, v, columns), _spelled(ctx, a, (part, read))
    texts = [blocks(ctx, x, lead, [heads, (part,), rows]) for x in (q, k)]
    texts.append(blocks(ctx, v, lead, [heads, columns]))
    texts.append(blocks(ctx, a, lead, [heads, (part,), (read,), rows if set(rows) & set(a.dims) else ()]))
    texts.append(_start(ctx, node, start, [heads, (part,), rows, columns]))
    names = [ctx.names.fresh(f"{ctx.current}_read"), ctx.names.fresh(f"{ctx.current}_state")]
    arguments = [*texts, ", ".join(_flags(ctx, node, time))]
    ctx.call(", ".join(names), ctx.support("block_read"), arguments, ctx.shape((*lead, *heads, *columns)))
    batched = is_batched(node, [q, k, v, a])
    reads = restored(ctx, names[0], lead, [heads, columns], node.dtype, batched)
    return reads, restored(ctx, names[1], (BATCH,), [heads, (part,), rows, columns], node.dtype, batched)
