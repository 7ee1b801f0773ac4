"""Reads of decayed states, and the states after the last position, as calls of linear attention.

The summed rows become the key dimension, what only the writes have the value dimension, and every other index a head;
a read and the state behind it are two results of one call. Entry points: `read`, `state`, `product_of_states`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import options

from . import contractions, expressions, history, scans
from .context import Context
from .narrow import given
from .values import ATOM, BATCH, CHOICE, PRODUCT, Value, merge, spread, with_ones

ATTENTION, MIXED = "chunk_linear_attention", "segmented_read"


@dataclass(frozen=True)
class Layout:
    """Which indices are heads, rows (keys) and columns (values)."""

    time: str
    heads: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    by_column: bool  # does the decay vary along the columns, and not along the rows?
    mixed: bool = False  # does it vary along rows and columns at once?


def layout_of(ctx: Context, node: Node, q: Value | None, k: Value, v: Value, a: Value, start: Value) -> Layout:
    """How the operands of a read (of a state: without q) are arranged for linear attention."""
    time, rows = node.attr[0][0], node.attr[1]
    known = {time, BATCH, *rows}
    left = {*(q.dims if q is not None else ()), *k.dims} - known
    every = merge(tuple(q.dims) if q is not None else (), k.dims, v.dims, a.dims, start.dims)
    columns = {d for d in (*v.dims, *start.dims) if d not in known and d not in left}
    by_column = bool(columns & set(a.dims)) and not set(rows) & set(a.dims)
    if columns & set(a.dims) and set(rows) & set(a.dims):
        heads = ctx.ordered(tuple(d for d in every if d not in known and d not in columns))
        return Layout(time, heads, tuple(rows), ctx.ordered(tuple(columns)), False, True)
    if by_column and not columns <= set(a.dims):
        columns -= set(a.dims)  # a decay along some columns: those become heads
        by_column = False
    heads = ctx.ordered(tuple(d for d in every if d not in known and d not in columns))
    mixed = by_column and ctx.target.call(MIXED).narrow  # a stand-in for any decay
    return Layout(time, heads, tuple(rows), ctx.ordered(tuple(columns)), by_column and not mixed, mixed)


def without_number(ctx: Context, node: Node) -> tuple[Node, str]:
    """A product without the factor that is one number at each call, and that number's text."""
    sign, ups, downs = contractions.signed_factors(ctx, node)
    plain_ups, plain_downs = ([f for f in part if f.free] for part in (ups, downs))
    numbers = [[f for f in part if not f.free] for part in (ups, downs)]
    if not any(numbers) or not plain_ups or ctx.uses.get(node, 0) > 1:
        return node, ""
    factor = build.quotient(*numbers)
    value = expressions.emit(ctx, factor if sign > 0 else build.neg(factor))
    real = value.static and value.dtype != "complex"
    return (build.quotient(plain_ups, plain_downs), value.text) if real else (node, "")


def _reading(ctx: Context, node: Node) -> tuple[list[Value], str]:
    """The operands of a read or a state, and what a stand-in is told beyond them."""
    first, number = without_number(ctx, node.args[0]) if node.op == "decayed_read" else (node.args[0], "")
    if not ctx.target.call(ATTENTION).narrow:
        return [scans.operand(ctx, x) for x in (first, *node.args[1:])], f", scale={number}" if number else ""
    tensor = ctx.system.tensors.get(ctx.current)
    alone = tensor is not None and tensor.rhs is node and tensor.name in ctx.unread
    more = ", dots=out_dtype" + (f", scale={number}" if number else "") + (", dtype=out_dtype" if alone else "")
    return [given(ctx, x) for x in (first, *node.args[1:])], more


def _factored(ctx: Context, decay: Node, layout: Layout) -> tuple[Value, str]:
    """A decay along rows and columns, without the factor that does not vary along time: that one is `times`."""
    sign, ups, downs = contractions.signed_factors(ctx, decay)
    moving, still = ([f for f in ups if (layout.time in f.free) is there] for there in (True, False))
    groups = [layout.heads, layout.rows, layout.columns]
    operand = given if ctx.target.call(MIXED).narrow else scans.operand
    if downs or not moving or not any(f.free for f in still) or any(len(group) > 1 for group in groups):
        return operand(ctx, decay), ""
    factor = build.product(still)
    times = scans.operand(ctx, factor if sign > 0 else build.neg(factor))
    return operand(ctx, build.product(moving)), f", times={scans.blocks(ctx, times, (BATCH, layout.time), groups)}"


def _arranged(
    ctx: Context, value: Value, lead: tuple[str, ...], heads: tuple[str, ...], last: tuple[str, ...]
) -> Value:
    """[*lead, H, last]: groups of one dimension stay views, others are merged."""
    dims = (*lead, *heads, *last)
    if len(heads) == 1 and len(last) <= 1:
        wide = with_ones(value, dims if last else (*dims, "@one"))
        return wide
    present = tuple(d for d in dims if d in value.dims or d in heads or d in last)
    whole = expressions.full(ctx, value, present, value.dtype)
    text = f"{ctx.helper('_blocks')}({whole.text}, {len(heads)}, {len(last)})"
    return with_ones(Value(text, (*[d for d in lead if d in present], "@h", "@l"), value.dtype), (*lead, "@h", "@l"))


def _call(
    ctx: Context, node: Node, q: Value, k: Value, v: Value, a: Value, start: Value, layout: Layout, more: str
) -> tuple[Value, Value]:
    """The reads and the final state."""
    lead = (BATCH, layout.time)
    heads, rows, columns = layout.heads, layout.rows, layout.columns
    k = _spelled(ctx, k, (layout.time, *rows))
    v = _spelled(ctx, v, columns)
    texts = [
        _arranged(ctx, q, lead, heads, rows).text,
        _arranged(ctx, k, lead, heads, rows).text,
        _arranged(ctx, v, lead, heads, columns).text,
    ]
    along = rows if set(rows) & set(a.dims) else columns if layout.by_column else ()
    groups = [heads, rows, columns]
    texts.append(scans.blocks(ctx, a, lead, groups) if layout.mixed else _arranged(ctx, a, lead, heads, along).text)
    if node.args[-1] is build.ZERO:
        texts.append("None")
    else:
        whole = expressions.full(ctx, start, (BATCH, *heads, *rows, *columns), start.dtype)
        same = len(heads) == len(rows) == len(columns) == 1
        whole = whole if same or whole.text.isidentifier() else ctx.bind(f"{ctx.current}_start", whole)
        shape = [ctx.sequences(whole.text), *(scans.product(ctx, group) for group in (heads, rows, columns))]
        texts.append(whole.text if same else f"{whole.at(ATOM)}.reshape({', '.join(shape)})")
    flags = f", log={bool(options(node)['log'])}" + more + (", columns=True" if layout.by_column else "")
    flags += ctx.begins(MIXED if layout.mixed else ATTENTION, layout.time, states=True)
    names = [ctx.names.fresh(f"{ctx.current}_read"), ctx.names.fresh(f"{ctx.current}_state")]
    function = ctx.support(MIXED if layout.mixed else ATTENTION)
    ctx.call(", ".join(names), function, [*texts, flags.removeprefix(", ")], ctx.shape((*lead, *heads, *columns)))
    batched = scans.is_batched(node, [q, k, v, a])
    read = scans.restored(ctx, names[0], lead, [heads, columns], node.dtype, batched)
    own = _own_dtype(k, v, a, start)
    text = names[1] if own == node.dtype else f"torch.real({names[1]})"
    return read, scans.restored(ctx, text, (BATCH,), [heads, rows, columns], own, batched)


def _own_dtype(*operands: Value) -> str:
    """Of the state, which may be real where what reads it is complex."""
    return "complex" if any(x.dtype == "complex" for x in operands) else "real"


def _spelled(ctx: Context, value: Value, wanted: tuple[str, ...]) -> Value:
    """With every wanted dimension: the keys give the number of positions and of rows, the values that of columns."""
    missing = [d for d in wanted if d not in value.dims]
    return expressions.full(ctx, value, ctx.ordered(merge(value.dims, missing)), value.dtype) if missing else value


def shared(ctx: Context, node: Node) -> tuple[object, ...]:
    """What a read and a state have in common: the state's writes, decay, start, rows; in loops, where these stand."""
    return ("final", node.args[-4:], node.attr[0], node.attr[1], options(node)["log"], ctx.standing)


def read(ctx: Context, node: Node) -> Value:
    """A `decayed_read`; the state after the last position, which the same call gives, is remembered."""
    (q, k, v, a, start), more = _reading(ctx, node)
    layout = layout_of(ctx, node, q, k, v, a, start)
    own = {*k.dims, *v.dims, *a.dims, *start.dims, layout.time, BATCH, *layout.rows}
    extra = [d for d in q.dims if d not in own]
    through_states = bool(extra) and not layout.columns
    if through_states or (layout.mixed and not ctx.target.call(MIXED).narrow):  # no call of linear attention
        (q, k, v, a, start), more = [scans.operand(ctx, x) for x in node.args], ""
    if layout.mixed:
        a, times = _factored(ctx, node.args[3], layout)
        more += times
    given = options(node)
    length = ctx.length(layout.time)
    chunk = given["chunk"] or f"{ctx.helper('_whole_chunk')}({length})"
    more = (", strict=True" if given["strict"] else "") + more
    if chunk != 64 and not layout.mixed:
        more += f", chunk={chunk}"
    if through_states:
        return _through_states(ctx, node, q, k, v, a, start)
    read, final = _call(ctx, node, q, k, v, a, start, layout, more)
    for d in extra:  # the state does not vary along what only the reads have
        final = Value(
            f"{final.at(ATOM)}.select({final.dims.index(d)}, 0)", tuple(x for x in final.dims if x != d), final.dtype
        )
    ctx.caches[0].setdefault(shared(ctx, node), final)
    if read.text.isidentifier():
        return read
    return ctx.bind(f"{ctx.current}_part", read)


def _through_states(ctx: Context, node: Node, q: Value, k: Value, v: Value, a: Value, start: Value) -> Value:
    """Many reads of one small state: the states themselves, then the product with the reads."""
    time, rows = node.attr[0][0], node.attr[1]
    states, begin = _states(ctx, node, k, v, a, start, time)
    ctx.caches[0].setdefault(shared(ctx, node), Value(f"({_last(ctx, states, begin, time)})", begin.dims, states.dtype))
    if options(node)["strict"]:
        number = history.numbers(ctx) if ctx.ends and ctx.on_stream(time) else "None"
        states = Value(f"{ctx.helper('_states_before')}({begin.text}, {states.text}, {number})", states.dims, node.dtype)
    return contractions.product_sum(ctx, node, [q, states], list(rows))


def _last(ctx: Context, states: Value, begin: Value, time: str) -> str:
    """The last of all states, copied, and not a part that would hold them all; that of each packed sequence if there are some."""
    if ctx.ends and ctx.on_stream(time):
        return f"{ctx.helper('_at_end')}({states.text}, {begin.at(ATOM)}.unsqueeze(1), 1, {ctx.ends})"
    return f"{states.text}[:, -1].clone() if {ctx.length(time)} else {begin.at(CHOICE + 1)}"


def product_of_states(ctx: Context, node: Node) -> Value:
    """The states before each step, of the one recurrence and, mirrored, of the other: their product, contracted."""
    time, rows = node.attr[0][0], node.attr[1]
    given, values = options(node), [scans.operand(ctx, x) for x in node.args]
    length, before = ctx.length(time), []
    for n, log in ((0, given["log"]), (4, given["log_other"])):
        k, v, a, start = values[n : n + 4]
        scan = build.make("affine_scan", *(node.args[m] for m in (n + 2, n, n + 3)), attr=((time,), (), (("log", log),)))
        dims = ctx.ordered(merge((BATCH, time), k.dims, v.dims))
        write = Value(f"{spread(k, dims).at(PRODUCT)} * {spread(v, dims).at(PRODUCT + 1)}", dims, node.dtype, PRODUCT)
        states = ctx.bind(f"{ctx.current}_states", scans.affine(ctx, scan, a, write, start))
        begin = expressions.full(ctx, start, (BATCH, *states.dims[2:]), start.dtype)
        text = f"{ctx.helper('_join')}([{begin.at(ATOM)}.unsqueeze(1), {states.text}[:, :-1]], 1)[:, :{length}]"
        before.append(Value(text if n == 0 else f"{text}.flip(1)", states.dims, node.dtype))
    return contractions.product_sum(ctx, node, before, list(rows))


def _states(ctx: Context, node: Node, k: Value, v: Value, a: Value, start: Value, time: str) -> tuple[Value, Value]:
    """Every state, and the one before the first."""
    dims, own = ctx.ordered(merge(k.dims, v.dims)), _own_dtype(k, v, a, start)
    product = Value(f"{spread(k, dims).at(PRODUCT)} * {spread(v, dims).at(PRODUCT + 1)}", dims, own, PRODUCT)
    write = k if build.value_of(node.args[-3]) == 1 else product
    states = ctx.bind(f"{ctx.current}_states", replace(scans.affine(ctx, node, a, write, start), dtype=own))
    rest, start = (BATCH, *states.dims[2:]), expressions.convert(ctx, start, own)
    return states, expressions.full(ctx, start, rest, start.dtype)


def state(ctx: Context, node: Node) -> Value:
    """A `decayed_state`: by the call of a read of the same state, if there is one."""
    found = ctx.caches[0].get(shared(ctx, node))
    if found is not None:
        return found
    rows: tuple[str, ...] = node.attr[1]
    time: str = node.attr[0][0]
    if not rows:  # entry by entry: the last of the scan
        k, v, a, start = (scans.operand(ctx, x) for x in node.args)
        states, begin = _states(ctx, node, k, v, a, start, time)
        return Value(_last(ctx, states, begin, time), begin.dims, node.dtype, CHOICE)
    (k, v, a, start), more = _reading(ctx, node)
    layout = layout_of(ctx, node, None, k, v, a, start)
    if layout.mixed:
        a, times = _factored(ctx, node.args[2], layout)
        more += times
    return _call(ctx, node, k, k, v, a, start, layout, more)[1]
