"""`decayed_solve` as a call of `support`: alone, or in one pass with a read of the same state.

What a state answers and takes back, and what is read of the state afterwards, go through the same chunks: where a read
names the feedback as its values and shares its keys, decay and start, one call gives both. Entry point: `solve`.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.node import Node, reads, walk
from seqdsl.ir.ops import options

from . import decayed, expressions, narrow, scans
from .context import Context
from .decayed import Layout
from .values import BATCH, Value


def solve(ctx: Context, node: Node) -> Value:
    """The feedback y, over heads, ranks and columns: columns are what neither the reads nor the decay vary along."""
    w, u, x, a, start = narrow.operands(ctx, "chunk_solve", node)
    time, *ranks = node.attr[0]
    rows: tuple[str, ...] = node.attr[1]
    heads, columns = scans.heads_and_columns(ctx, {time, BATCH, *ranks, *rows}, [w, u, a], [x, start])
    layout = Layout(time, heads, rows, columns, False)
    reader = None if ranks or ctx.loops or ctx.fixed else _reader(ctx, node)
    if reader is not None:
        q, more = _asked(ctx, reader)
        if decayed.layout_of(ctx, reader, q, u, x, a, start) == layout and not set(q.dims) - {*heads, time, BATCH, *rows}:
            return _both(ctx, node, reader, [w, u, x, q], a, start, layout, more)
    lead = (BATCH, time)
    texts = [scans.blocks(ctx, v, lead, [heads, tuple(ranks), rows]) for v in (w, u)]
    texts.append(scans.blocks(ctx, x, lead, [heads, tuple(ranks), layout.columns]))
    name = ctx.rows_name()
    _call(ctx, node, name, "chunk_solve", texts, a, start, layout, types(ctx, node))
    batched = scans.is_batched(node, [w, u, x, a])
    return scans.restored(ctx, name, lead, [heads, tuple(ranks), layout.columns], node.dtype, batched)


def _reader(ctx: Context, node: Node) -> Node | None:
    """A read of the state that this feedback writes, if what it asks with is computed already."""
    owner = next((t for t in ctx.system.derived() if t.rhs is node), None)
    if owner is None:
        return None
    y = build.whole(owner)
    given = options(node)
    for tensor in ctx.system.derived():
        for other in walk(tensor.rhs) if tensor.rhs is not None else ():
            if (
                other.op == "decayed_read"
                and other.dtype == node.dtype
                and other.args[1:] == (node.args[1], y, *node.args[3:])
                and other.attr[:2] == node.attr[:2]
                and all(options(other)[k] == given[k] for k in ("log", "chunk"))
                and {str(r.attr) for r in reads(other.args[0])} <= ctx.places.keys()
            ):
                return other
    return None


def types(ctx: Context, node: Node) -> list[str]:
    """What a stand-in is told: the outputs' width does for unknowns that only other calls of stand-ins read."""
    if not ctx.target.call("chunk_solve").narrow:
        return []
    tensor = ctx.system.tensors.get(ctx.current)
    reading = ("decayed_read", "decayed_state") if ctx.target.call(decayed.ATTENTION).narrow else ()
    alone = tensor is not None and tensor.rhs is node and narrow.only_operand(ctx, tensor.name, reading)
    return ["dots=out_dtype", *(["dtype=out_dtype"] if alone else [])]


def _asked(ctx: Context, reader: Node) -> tuple[Value, list[str]]:
    """What a read asks with, and what a stand-in is told about it."""
    if not ctx.target.call("chunk_solve_read").narrow:
        return scans.operand(ctx, reader.args[0]), []
    first, number = decayed.without_number(ctx, reader.args[0])
    alone = any(t.rhs is reader and t.name in ctx.unread for t in ctx.system.derived())
    more = ["dots=out_dtype", *([f"scale={number}"] if number else []), *(["dtype=out_dtype"] if alone else [])]
    return narrow.given(ctx, first), more


def _both(
    ctx: Context, node: Node, reader: Node, given: list[Value], a: Value, start: Value, layout: Layout, more: list[str]
) -> Value:
    """One call: the feedback, and for those who ask for them later the reads and the final state."""
    w, u, x, q = given
    lead, heads, rows, columns = (BATCH, layout.time), layout.heads, layout.rows, layout.columns
    texts = [scans.blocks(ctx, v, lead, [heads, rows]) for v in (w, u)]
    texts += [scans.blocks(ctx, x, lead, [heads, columns]), scans.blocks(ctx, q, lead, [heads, rows])]
    owner = next(t for t in ctx.system.derived() if t.rhs is not None and reader in walk(t.rhs))
    if owner.rhs is reader:
        ctx.comment(owner)
    names = [ctx.names.fresh(f"{owner.name.rpartition('.')[2]}_{kind}") for kind in ("read", "state")]
    names.append(ctx.rows_name())
    flags = [*(["strict=True"] if options(reader)["strict"] else []), *more]
    _call(ctx, node, ", ".join(names), "chunk_solve_read", texts, a, start, layout, flags)
    batched = scans.is_batched(node, [*given, a])
    read, y = (scans.restored(ctx, name, lead, [heads, columns], node.dtype, batched) for name in (names[0], names[2]))
    final = scans.restored(ctx, names[1], (BATCH,), [heads, rows, columns], node.dtype, batched)
    expressions.remember(ctx, reader, read)
    ctx.caches[0].setdefault(decayed.shared(ctx, reader), final)
    return y


def _call(
    ctx: Context,
    node: Node,
    opening: str,
    function: str,
    texts: list[str],
    a: Value,
    start: Value,
    layout: Layout,
    more: list[str],
) -> None:
    """The lines of a call: the operands, then what both functions take."""
    lead, heads, rows = (BATCH, layout.time), layout.heads, layout.rows
    decay = scans.blocks(ctx, a, lead, [heads, rows if set(rows) & set(a.dims) else ()])
    begin = "None" if node.args[-1] is build.ZERO else _begin(ctx, start, [heads, rows, layout.columns])
    given = options(node)
    flags = [f"log={bool(given['log'])}", *(["after=True"] if given["after"] else []), *more]
    flags += scans.chunk_argument(ctx, given["chunk"], ctx.length(layout.time))
    first = ctx.begins(function, layout.time, states=True).removeprefix(", ")
    flags += [first] if first else []
    shape = ctx.shape((*lead, *heads, *node.attr[0][1:], *layout.columns))
    ctx.call(opening, ctx.support(function), [*texts, decay, begin, ", ".join(flags)], shape)


def _begin(ctx: Context, start: Value, groups: list[tuple[str, ...]]) -> str:
    """The first states, one dimension for each group."""
    if all(len(group) == 1 for group in groups):
        return scans.blocks(ctx, start, (BATCH,), groups)
    whole = expressions.full(ctx, start, (BATCH, *(d for group in groups for d in group)), start.dtype)
    whole = whole if whole.text.isidentifier() else ctx.bind(f"{ctx.current}_start", whole)
    return f"{whole.text}.reshape({', '.join([ctx.sequences(whole.text), *(scans.product(ctx, g) for g in groups)])})"
