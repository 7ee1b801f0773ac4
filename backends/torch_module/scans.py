"""The special nodes that forms make, as calls of `support` functions: dimensions arranged as those want them.

Entry point: `scan`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import options

from . import decayed, expressions, feedback, ranks
from .context import Context
from .values import ATOM, BATCH, SUM, Value, merge, plain, spread, with_ones


def scan(ctx: Context, node: Node) -> Value:
    """`affine_scan`, `decayed_read` or `decayed_state`."""
    if node.op == "affine_scan" and node.dtype == "int":
        return _counted(ctx, node)
    if node.op == "affine_scan":
        a, b, start = (operand(ctx, x) for x in node.args)
        return affine(ctx, node, a, b, start)
    if node.op == "ring_scan":
        return _ring(ctx, node)
    if node.op == "decayed_read":
        return decayed.read(ctx, node)
    if node.op == "decayed_product":
        return decayed.product_of_states(ctx, node)
    if node.op == "decayed_solve":
        return feedback.solve(ctx, node)
    if node.op == "matrix_scan":
        return _matrices(ctx, node)
    if node.op == "grid_scan":
        return _grid(ctx, node)
    if node.op == "across_ranks":
        return ranks.states(ctx, node)
    return decayed.state(ctx, node)


def _counted(ctx: Context, node: Node) -> Value:
    """A running sum of integers, from the last factor 0 on: exact, and an integer."""
    time: str = node.attr[0][0]
    kept, b, start = (expressions.tensor(ctx, plain(expressions.emit(ctx, x)), "int") for x in node.args)
    lanes = ctx.ordered(tuple(d for d in merge(kept.dims, b.dims, start.dims) if d not in (time, BATCH)))
    b = expressions.full(ctx, b, (BATCH, time, *lanes), "int")
    if node.args[0] is not build.ONE:
        before = "None" if node.args[-1] is build.ZERO else expressions.full(ctx, start, (BATCH, *lanes), "int").text
        wide = expressions.full(ctx, kept, b.dims, "int").text
        more = ", reverse=True" if options(node).get("reverse") else ""
        return Value(f"{ctx.helper('_counted')}({wide}, {b.text}, {before}{more})", b.dims, "int")
    flip = ".flip(1)" if options(node).get("reverse") else ""
    text = f"{b.at(ATOM)}{flip}.cumsum(1){flip}"
    if node.args[-1] is build.ZERO:
        return Value(text, b.dims, "int", ATOM)
    first = expressions.full(ctx, start, (BATCH, *lanes), "int")
    return Value(f"{text} + {first.at(ATOM)}[:, None]", b.dims, "int", SUM)


def operand(ctx: Context, node: Node) -> Value:
    """The value of an operand as a tensor, real or complex."""
    value = plain(expressions.emit(ctx, node))
    return expressions.tensor(ctx, value, "real" if value.dtype in ("bool", "int") else value.dtype)


def affine(ctx: Context, node: Node, a: Value, b: Value, start: Value) -> Value:
    """Time is the dimension after the batch; every other one is a lane."""
    time: str = node.attr[0][0]
    lanes = ctx.ordered(tuple(d for d in merge(a.dims, b.dims, start.dims) if d not in (time, BATCH)))
    dims = (BATCH, time, *lanes)
    b = expressions.full(ctx, b, dims, b.dtype)
    begin = "None" if node.args[-1] is build.ZERO else expressions.full(ctx, start, (BATCH, *lanes), start.dtype).text
    given = options(node)
    flags = "".join(f", {k}=True" for k in ("log", "reverse") if given.get(k)) + _begins(ctx, node, time)
    a = (
        a
        if time in a.dims
        else expressions.full(
            ctx, a, (*([BATCH] if BATCH in a.dims else []), time, *[d for d in lanes if d in a.dims]), a.dtype
        )
    )
    text = f"{ctx.support('affine_scan')}({spread(a, dims).text}, {b.text}, {begin}{flags})"
    return Value(text, dims, node.dtype)


def _begins(ctx: Context, node: Node, time: str) -> str:
    """Where packed sequences begin, and whether each of them has a start of its own: a state's, or a base case."""
    first, start = ctx.begins("affine_scan", time), node.args[-1]
    tensor = ctx.system.tensors[str(start.attr)] if start.op == "read" else None
    if not first or start is build.ZERO or tensor is not None and tensor.rhs is build.ZERO and ctx.stateless:
        return first
    plain = tensor is not None and tensor.kind == "carry" and tensor.rhs is build.ZERO
    return f"{first}, starts={f'None if state is None else {ctx.ends}' if plain else ctx.ends}"


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
    own = ctx.target.steps
    function = None if own is None else own.ring(ctx, str(given["ring"]), kind, len(lanes), time in a.dims)
    flags += ctx.each(time)
    return Value(f"{function or ctx.support('ring_scan')}({', '.join(texts)}, {flags})", dims, node.dtype)


def heads_and_columns(
    ctx: Context, apart: Set[str], tying: Sequence[Value], others: Sequence[Value]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What operands vary along besides the dimensions `apart`: heads are those of the ones that tie rows to each other,
    columns what only the others have."""
    heads = ctx.ordered({d for v in tying for d in v.dims} - apart)
    return heads, ctx.ordered({d for v in others for d in v.dims} - apart - {*heads})


def chunk_argument(ctx: Context, chunk: int, length: str) -> list[str]:
    """How many positions a function takes at a time, where they are not the usual 64: all of them, if that is 0."""
    if chunk == 0:
        return [f"chunk={ctx.helper('_whole_chunk')}({length})"]
    return [f"chunk={chunk}"] if chunk != 64 else []


def is_batched(node: Node, values: Sequence[Value]) -> bool:
    """Does the result of a call differ from one sequence of the batch to another?"""
    return node.args[-1] is not build.ZERO or any(BATCH in v.dims for v in values)


def product(ctx: Context, dims: tuple[str, ...]) -> str:
    """The length of dimensions that are taken as one."""
    return " * ".join(ctx.dim_text(d) for d in dims) or "1"


def restored(
    ctx: Context, name: str, lead: tuple[str, ...], groups: list[tuple[str, ...]], dtype: str, batched: bool
) -> Value:
    """A result of a call with every index a dimension of its own again."""
    dims = (*lead, *(d for group in groups for d in group))
    if all(len(group) == 1 for group in groups):
        return Value(name, dims, dtype)
    count = ctx.sequences(name) if lead == (BATCH,) else ctx.dim_text(lead[0])
    shape = ", ".join([count, *(ctx.dim_text(d) for d in dims[1:])])
    wide = "" if batched else f".expand({count}, *{name}.shape[1:])"
    return Value(f"{name}{wide}.reshape({shape})", dims, dtype)


def _matrices(ctx: Context, node: Node) -> Value:
    """The components n, over heads and columns: columns are what the matrices do not vary along."""
    a, b, start = (operand(ctx, n) for n in node.args)
    time, *kept = node.attr[0]
    read: tuple[str, ...] = node.attr[1]
    heads, columns = heads_and_columns(ctx, {time, BATCH, *kept, *read}, [a], [b, start])
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
    name = _called(ctx, "matrix_scan", texts, (*lead, *heads, *kept, *columns))
    return restored(ctx, name, lead, [heads, n, columns], node.dtype, True)


def _called(ctx: Context, function: str, texts: list[str], dims: tuple[str, ...]) -> str:
    """The name of a scan's result, a line for each operand."""
    name = ctx.names.fresh(f"{ctx.current}_scan" if ctx.current.isidentifier() else "scan")
    ctx.call(name, ctx.support(function), texts, ctx.shape(dims))
    return name


def _grid(ctx: Context, node: Node) -> Value:
    """The same over two axes, with an edge before each of them."""
    operands = [operand(ctx, n) for n in node.args]
    first, second, *kept = node.attr[0]
    read: tuple[str, ...] = node.attr[1]
    heads, columns = heads_and_columns(ctx, {first, second, BATCH, *kept, *read}, operands[:2], operands[2:])
    n, texts, cells = tuple(kept), [], (BATCH, first, second)
    leads = (cells, cells, cells, (BATCH, second), (BATCH, first))
    for number, (value, lead) in enumerate(zip(operands, leads, strict=True)):
        last = columns if number > 1 else read
        if number > 2 and node.args[number] is build.ZERO:
            texts.append("None")
            continue
        whole = lead if number > 1 else ()
        dims = (*(d for d in (*lead, *heads) if d in value.dims or d in whole), *n, *last)
        texts.append(blocks(ctx, expressions.full(ctx, value, dims, value.dtype), lead, [heads, n, last]))
    texts += [f"{k}=True" for k in ("up", "back") if options(node)[k]]
    name = _called(ctx, "grid_scan", texts, (*cells, *heads, *kept, *columns))
    return restored(ctx, name, cells, [heads, n, columns], node.dtype, True)


def blocks(ctx: Context, value: Value, lead: tuple[str, ...], groups: list[tuple[str, ...]]) -> str:
    """[*lead, then one dimension for each group], of length 1 where the value does not vary along any of a group."""
    wanted = (*lead, *(d for group in groups for d in group))
    if all(len(group) <= 1 for group in groups):
        slots = (*lead, *(group[0] if group else f"@{k}" for k, group in enumerate(groups)))
        return with_ones(value, slots).text
    whole = expressions.full(ctx, value, wanted, value.dtype)
    return f"{whole.at(ATOM)}.reshape({', '.join([*(ctx.dim_text(d) for d in lead), *(product(ctx, g) for g in groups)])})"
