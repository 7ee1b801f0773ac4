"""The special nodes that forms make, as calls of `support` functions: dimensions arranged as those want them.

A decayed read is a linear attention: its summed rows become the key dimension, what only the writes have the value
dimension, and every other index a head. `decayed_state` is the other result of the same call.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import options

from . import contractions, expressions
from .context import Context
from .values import ATOM, BATCH, CHOICE, PRODUCT, Value, merge, plain, spread, with_ones


def scan(ctx: Context, node: Node) -> Value:
    """`affine_scan`, `decayed_read` or `decayed_state`."""
    if node.op == "affine_scan":
        a, b, start = (operand(ctx, x) for x in node.args)
        return _affine(ctx, node, a, b, start)
    if node.op == "ring_scan":
        return _ring(ctx, node)
    if node.op == "decayed_read":
        return _read(ctx, node)
    if node.op == "decayed_product":
        return _product_of_states(ctx, node)
    if node.op == "decayed_solve":
        from .feedback import solve

        return solve(ctx, node)
    if node.op == "matrix_scan":
        return _matrices(ctx, node)
    return _state(ctx, node)


def operand(ctx: Context, node: Node) -> Value:
    value = plain(expressions.emit(ctx, node))
    return expressions.tensor(ctx, value, "real" if value.dtype in ("bool", "int") else value.dtype)


def _affine(ctx: Context, node: Node, a: Value, b: Value, start: Value) -> Value:
    """Time is the dimension after the batch; every other one is a lane."""
    time: str = node.attr[0][0]
    lanes = ctx.ordered(tuple(d for d in merge(a.dims, b.dims, start.dims) if d not in (time, BATCH)))
    dims = (BATCH, time, *lanes)
    b = expressions.full(ctx, b, dims, b.dtype)
    begin = "None" if node.args[-1] is build.ZERO else expressions.full(ctx, start, (BATCH, *lanes), start.dtype).text
    given = options(node)
    flags = "".join(f", {k}=True" for k in ("log", "reverse") if given.get(k))
    a = (
        a
        if time in a.dims
        else expressions.full(
            ctx, a, (*([BATCH] if BATCH in a.dims else []), time, *[d for d in lanes if d in a.dims]), a.dtype
        )
    )
    text = f"{ctx.support('affine_scan')}({spread(a, dims).text}, {b.text}, {begin}{flags})"
    return Value(text, dims, node.dtype)


def _ring(ctx: Context, node: Node) -> Value:
    """The same over another ring; entries that are conditions stay conditions."""
    kind = "bool" if node.dtype == "bool" else "real"
    a, b, start = (expressions.tensor(ctx, expressions.emit(ctx, x), kind) for x in node.args)
    time: str = node.attr[0][0]
    lanes = ctx.ordered(tuple(d for d in merge(a.dims, b.dims, start.dims) if d not in (time, BATCH)))
    dims = (BATCH, time, *lanes)
    b = expressions.full(ctx, b, dims, kind)
    texts = [with_ones(a, dims).text, b.text, with_ones(start, (BATCH, *lanes)).text]
    given = options(node)
    flags = f"ring={given['ring']!r}" + (", reverse=True" if given["reverse"] else "")
    return Value(f"{ctx.support('ring_scan')}({', '.join(texts)}, {flags})", dims, node.dtype)


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
    return Layout(time, heads, tuple(rows), ctx.ordered(tuple(columns)), by_column)


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
    texts.append(_mixed(ctx, a, layout) if layout.mixed else _arranged(ctx, a, lead, heads, along).text)
    if node.args[-1] is build.ZERO:
        texts.append("None")
    else:
        whole = expressions.full(ctx, start, (BATCH, *heads, *rows, *columns), start.dtype)
        shape = [ctx.dim_text(BATCH), *(product(ctx, group) for group in (heads, rows, columns))]
        same = len(heads) == len(rows) == len(columns) == 1
        texts.append(whole.text if same else f"{whole.at(ATOM)}.reshape({', '.join(shape)})")
    flags = f", log={bool(options(node)['log'])}" + more + (", columns=True" if layout.by_column else "")
    names = [ctx.names.fresh(f"{ctx.current}_read"), ctx.names.fresh(f"{ctx.current}_state")]
    ctx.block.add(
        f"{names[0]}, {names[1]} = {ctx.support('segmented_read' if layout.mixed else 'chunk_linear_attention')}("
    )
    for text in texts:
        ctx.block.add(f"    {text},")
    ctx.block.add(f"    {flags.removeprefix(', ')},")
    ctx.block.add(f")  # [{', '.join(ctx.dim_text(d) for d in (*lead, *heads, *columns))}]")
    batched = node.args[-1] is not build.ZERO or any(BATCH in x.dims for x in (q, k, v, a))
    read = restored(ctx, names[0], lead, [heads, columns], node.dtype, batched)
    final = restored(ctx, names[1], (BATCH,), [heads, rows, columns], node.dtype, batched)
    return read, final


def _mixed(ctx: Context, a: Value, layout: Layout) -> str:
    """The decay as [B, T, H, rows, columns]."""
    groups = (layout.heads, layout.rows, layout.columns)
    lead = (BATCH, layout.time)
    if all(len(group) == 1 for group in groups):
        return with_ones(a, (*lead, *(d for group in groups for d in group))).text
    whole = expressions.full(ctx, a, (*lead, *(d for group in groups for d in group)), a.dtype)
    shape = [*(ctx.dim_text(d) for d in lead), *(product(ctx, group) for group in groups)]
    return f"{whole.at(ATOM)}.reshape({', '.join(shape)})"


def _spelled(ctx: Context, value: Value, wanted: tuple[str, ...]) -> Value:
    """With every wanted dimension: the keys give the number of positions and of rows, the values that of columns."""
    missing = [d for d in wanted if d not in value.dims]
    return expressions.full(ctx, value, ctx.ordered(merge(value.dims, missing)), value.dtype) if missing else value


def product(ctx: Context, dims: tuple[str, ...]) -> str:
    return " * ".join(ctx.dim_text(d) for d in dims) or "1"


def restored(
    ctx: Context, name: str, lead: tuple[str, ...], groups: list[tuple[str, ...]], dtype: str, batched: bool
) -> Value:
    """A result of a call with every index a dimension of its own again."""
    dims = (*lead, *(d for group in groups for d in group))
    if all(len(group) == 1 for group in groups):
        return Value(name, dims, dtype)
    shape = ", ".join(ctx.dim_text(d) for d in dims)
    wide = "" if batched else f".expand({ctx.dim_text(BATCH)}, *{name}.shape[1:])"
    return Value(f"{name}{wide}.reshape({shape})", dims, dtype)


def _matrices(ctx: Context, node: Node) -> Value:
    """The components n, over heads and columns: columns are what the matrices do not vary along."""
    a, b, start = (operand(ctx, n) for n in node.args)
    time, *kept = node.attr[0]
    read: tuple[str, ...] = node.attr[1]
    along = {time, BATCH, *kept, *read}
    every = [d for d in merge(a.dims, b.dims, start.dims) if d not in along]
    heads = ctx.ordered(tuple(d for d in every if d in a.dims))
    columns = ctx.ordered(tuple(d for d in every if d not in heads))
    lead, n = (BATCH, time), tuple(kept)
    a = expressions.full(ctx, a, (*(d for d in (*lead, *heads) if d in a.dims), *n, *read), a.dtype)
    b = expressions.full(ctx, b, (*(d for d in (*lead, *heads) if d in b.dims or d in lead), *n, *columns), b.dtype)
    texts = [blocks(ctx, a, lead, [heads, n, read]), blocks(ctx, b, lead, [heads, n, columns])]
    if node.args[-1] is build.ZERO:
        texts.append("None")
    else:
        start = expressions.full(ctx, start, (BATCH, *(d for d in heads if d in start.dims), *n, *columns), start.dtype)
        texts.append(blocks(ctx, start, (BATCH,), [heads, n, columns]))
    texts += ["reverse=True"] if options(node)["reverse"] else []
    name = ctx.names.fresh(f"{ctx.current}_scan" if ctx.current.isidentifier() else "scan")
    ctx.block.add(f"{name} = {ctx.support('matrix_scan')}(")
    for text in texts:
        ctx.block.add(f"    {text},")
    dims = (*lead, *heads, *kept, *columns)
    ctx.block.add(f")  # [{', '.join(ctx.dim_text(d) for d in dims)}]")
    return restored(ctx, name, lead, [heads, n, columns], node.dtype, True)


def blocks(ctx: Context, value: Value, lead: tuple[str, ...], groups: list[tuple[str, ...]]) -> str:
    """[*lead, then one dimension for each group], of length 1 where the value does not vary along any of a group."""
    wanted = (*lead, *(d for group in groups for d in group))
    if all(len(group) <= 1 for group in groups):
        slots = (*lead, *(group[0] if group else f"@{k}" for k, group in enumerate(groups)))
        return with_ones(value, slots).text
    whole = expressions.full(ctx, value, wanted, value.dtype)
    return f"{whole.at(ATOM)}.reshape({', '.join([*(ctx.dim_text(d) for d in lead), *(product(ctx, g) for g in groups)])})"


def shared(node: Node) -> tuple[object, ...]:
    """What a read and a state have in common: the state's writes, decay, start, rows."""
    return ("final", node.args[-4:], node.attr[0], node.attr[1], options(node)["log"])


def _read(ctx: Context, node: Node) -> Value:
    q, k, v, a, start = (operand(ctx, x) for x in node.args)
    layout = layout_of(ctx, node, q, k, v, a, start)
    given = options(node)
    length = ctx.length(layout.time)
    chunk = given["chunk"] or f"{ctx.helper('_whole_chunk')}({length})"
    more = ", strict=True" if given["strict"] else ""
    if chunk != 64 and not layout.mixed:
        more += f", chunk={chunk}"
    own = {*k.dims, *v.dims, *a.dims, *start.dims, layout.time, BATCH, *layout.rows}
    extra = [d for d in q.dims if d not in own]
    if extra and not layout.columns:
        return _through_states(ctx, node, q, k, v, a, start)
    read, final = _call(ctx, node, q, k, v, a, start, layout, more)
    for d in extra:  # the state does not vary along what only the reads have
        final = Value(
            f"{final.at(ATOM)}.select({final.dims.index(d)}, 0)", tuple(x for x in final.dims if x != d), node.dtype
        )
    ctx.caches[0].setdefault(shared(node), final)
    if read.text.isidentifier():
        return read
    return ctx.bind(f"{ctx.current}_part", read)


def _through_states(ctx: Context, node: Node, q: Value, k: Value, v: Value, a: Value, start: Value) -> Value:
    """Many reads of one small state: the states themselves, then the product with the reads."""
    time, rows = node.attr[0][0], node.attr[1]
    states, begin = _states(ctx, node, k, v, a, start, time)
    final = f"({states.text}[:, -1] if {ctx.length(time)} else {begin.text})"
    ctx.caches[0].setdefault(shared(node), Value(final, begin.dims, node.dtype))
    if options(node)["strict"]:
        states = Value(
            f"{ctx.helper('_join')}([{begin.at(ATOM)}.unsqueeze(1), {states.text}[:, :-1]], 1)"
            f"[:, : {ctx.length(time)}]",
            states.dims,
            node.dtype,
        )
    return contractions.product_sum(ctx, node, [q, states], list(rows))


def _product_of_states(ctx: Context, node: Node) -> Value:
    """The states before each step, of the one recurrence and, mirrored, of the other: their product, contracted."""
    time, rows = node.attr[0][0], node.attr[1]
    given, values = options(node), [operand(ctx, x) for x in node.args]
    length, before = ctx.length(time), []
    for n, log in ((0, given["log"]), (4, given["log_other"])):
        k, v, a, start = values[n : n + 4]
        scan = build.make("affine_scan", *(node.args[m] for m in (n + 2, n, n + 3)), attr=((time,), (), (("log", log),)))
        dims = ctx.ordered(merge((BATCH, time), k.dims, v.dims))
        write = Value(f"{spread(k, dims).at(PRODUCT)} * {spread(v, dims).at(PRODUCT + 1)}", dims, node.dtype, PRODUCT)
        states = ctx.bind(f"{ctx.current}_states", _affine(ctx, scan, a, write, start))
        begin = expressions.full(ctx, start, (BATCH, *states.dims[2:]), start.dtype)
        text = f"{ctx.helper('_join')}([{begin.at(ATOM)}.unsqueeze(1), {states.text}[:, :-1]], 1)[:, :{length}]"
        before.append(Value(text if n == 0 else f"{text}.flip(1)", states.dims, node.dtype))
    return contractions.product_sum(ctx, node, before, list(rows))


def _states(ctx: Context, node: Node, k: Value, v: Value, a: Value, start: Value, time: str) -> tuple[Value, Value]:
    """Every state, and the one before the first."""
    dims = ctx.ordered(merge(k.dims, v.dims))
    product = Value(f"{spread(k, dims).at(PRODUCT)} * {spread(v, dims).at(PRODUCT + 1)}", dims, node.dtype, PRODUCT)
    write = k if build.value_of(node.args[-3]) == 1 else product
    states = ctx.bind(f"{ctx.current}_states", _affine(ctx, node, a, write, start))
    rest = (BATCH, *states.dims[2:])
    return states, expressions.full(ctx, start, rest, start.dtype)


def _state(ctx: Context, node: Node) -> Value:
    found = ctx.caches[0].get(shared(node))
    if found is not None:
        return found
    k, v, a, start = (operand(ctx, x) for x in node.args)
    rows: tuple[str, ...] = node.attr[1]
    time: str = node.attr[0][0]
    if not rows:  # entry by entry: the last of the scan
        states, begin = _states(ctx, node, k, v, a, start, time)
        return Value(
            f"{states.text}[:, -1] if {ctx.length(time)} else {begin.at(CHOICE + 1)}", begin.dims, node.dtype, CHOICE
        )
    layout = layout_of(ctx, node, None, k, v, a, start)
    return _call(ctx, node, k, k, v, a, start, layout, "")[1]


def mentions(node: Node, op: str) -> bool:
    """Is the operator below the node?"""
    return any(n.op == op for n in walk(node))
