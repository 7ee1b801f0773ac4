"""Reads along an axis by index arithmetic: shifts, windows, selections, and what lies before the first position.

Along the stream the positions before the first come from the state where one is given, else from the edge at -1, else
they are 0; on every other axis the state plays no part. Entry points: `simple`, `origin`, `past_values`.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.ir import build
from seqdsl.ir.node import Node, read_names
from seqdsl.ir.order import Linear, difference, linear, upper_bound, written
from seqdsl.ir.state import StateEntry, record_paths, state_record
from seqdsl.ir.system import Edge, Tensor

from . import edges, expressions, ranks, reads
from .context import Context, Source, Stored
from .sizes import size_value
from .values import ATOM, BATCH, CHOICE, PRODUCT, SUM, Value


def is_new(ctx: Context, source: Source, own: str) -> bool:
    """Does the variable start at the first new position along this index of the stream?"""
    return ctx.is_new(own) and not source.full


def simple(ctx: Context, source: Source, k: int, own: str, subscript: Node, value: Value) -> tuple[Value, bool] | None:
    """Dimension `@k` at a subscript, and whether its edges are dealt with; None where it takes a gather."""
    free = subscript.free - set(ctx.fixed)
    if free and subscript.op == "index" and reads.direct(ctx, source, own, str(subscript.attr)):
        return replace(value, dims=tuple(str(subscript.attr) if d == f"@{k}" else d for d in value.dims)), True
    if not free and not _data(subscript):
        return _selected(ctx, source, k, own, subscript, value)
    form = linear(subscript)
    mirrored = _mirrored(ctx, source, own, form)
    if mirrored is not None and not source.edges:
        dim = value.dims.index(f"@{k}")
        dims = tuple(mirrored if d == f"@{k}" else d for d in value.dims)
        return replace(value, text=f"{value.at(ATOM)}.flip({dim})", dims=dims, level=ATOM), True
    moving = [t for t in form if t is not None and t.free - set(ctx.fixed)]
    if any(t.op != "index" for t in moving):
        return None
    rest: Linear = {t: c for t, c in form.items() if t not in moving}
    if any(c.denominator != 1 for c in form.values()) or not 1 <= len(moving) <= 2:
        return None
    main = [t for t in moving if form[t] == 1]
    axis = [t for t in main if ctx.axis(str(t.attr)) == ctx.axis(own)] or main
    if not axis:
        return None
    lead = axis[0]
    other = [t for t in moving if t is not lead]
    if other and abs(form[other[0]]) != 1:
        return None
    sides = _sides(ctx, source, k, own, subscript)
    if sides is None:
        return None
    return _shifted(ctx, source, k, own, lead, (other[0], int(form[other[0]])) if other else None, rest, value, sides)


def _mirrored(ctx: Context, source: Source, own: str, form: Linear) -> str | None:
    """The index t of a subscript |t| - 1 - t, where it runs over the whole dimension as it lies in memory."""
    index = next((t for t, c in form.items() if t is not None and t.op == "index" and c == -1), None)
    if index is None or str(index.attr) in ctx.fixed or not reads.direct(ctx, source, own, str(index.attr)):
        return None
    name = str(index.attr)
    lengths = (build.size(name), build.size(own), build.size(ctx.axis(own)))
    whole = any(form == {length: 1, None: -1, index: -1} for length in lengths)
    return name if whole and not (ctx.past and ctx.on_stream(own)) else None


def _data(node: Node) -> bool:
    return bool(read_names(node))


def _selected(ctx: Context, source: Source, k: int, own: str, subscript: Node, value: Value) -> tuple[Value, bool]:
    if (
        subscript.op == "index"
        and str(subscript.attr) in ctx.fixed
        and reads.direct(ctx, source, own, str(subscript.attr))
    ):
        variable = ctx.fixed[str(subscript.attr)]
        if source.node is None and any(s.variable == variable for s in ctx.loops) and not source.keys:
            moved = replace(value, dims=tuple(str(subscript.attr) if d == f"@{k}" else d for d in value.dims))
            return reads.step(ctx, variable, str(subscript.attr), moved), True
    alone = value
    value, shift, subscript = origin(ctx, source, k, subscript, value)
    place = expressions.emit(ctx, subscript)
    joined = value is not alone and all(in_state(ctx, source, e) for e in source.edges if e.position == k)
    dim = value.dims.index(f"@{k}")  # with what a state holds of it, a tensor may have more dimensions
    rest = tuple(d for d in value.dims if d != f"@{k}")
    if shift:
        place = Value(f"{place.at(SUM)} - {shift}", (), "int", SUM, True)
    if reads.within(ctx, own, subscript, everywhere=True) and not shift and place.static:
        return replace(value, text=f"{value.at(ATOM)}.select({dim}, {place.text})", dims=rest, level=ATOM), joined
    text = f"{ctx.helper('_select')}({value.text}, {dim}, {place.text})"
    return replace(value, text=text, dims=rest, level=ATOM), joined


def _sides(ctx: Context, source: Source, k: int, own: str, subscript: Node) -> tuple[Edge | None, Edge | None] | None:
    """The edges just before and just after the axis, where the subscript may reach them; None for any other edge."""
    left = right = None
    for edge in source.edges:
        if edge.position != k or in_state(ctx, source, edge) or not reads.possible(ctx, subscript, edge.point):
            continue
        if build.value_of(edge.point) == -1 and left is None:
            left = edge
        elif edge.point.op == "size" and ctx.axis(str(edge.point.attr)) == ctx.axis(own) and right is None:
            right = edge
        else:
            return None
    return left, right


def _offset(ctx: Context, rest: Linear) -> str:
    """The part of a subscript that does not move, as text."""
    value = expressions.emit(ctx, written(rest))
    return value.at(SUM)


def _plus(*texts: str) -> str:
    kept = [t for t in texts if t not in ("", "0")]
    return " + ".join(kept).replace("+ -", "- ") if kept else "0"


def _shifted(
    ctx: Context,
    source: Source,
    k: int,
    own: str,
    lead: Node,
    window: tuple[Node, int] | None,
    rest: Linear,
    value: Value,
    sides: tuple[Edge | None, Edge | None],
) -> tuple[Value, bool] | None:
    """`x[i + c]` or `x[i + c + j]`, `x[i + c - j]`."""
    index = str(lead.attr)
    streamed = ctx.on_stream(own)
    start, apart = _offset(ctx, rest), ""
    left, right = sides
    entry = record(ctx, source) if streamed and ctx.stateful else None
    if streamed and entry is not None and ctx.is_new(own):
        value = join(ctx, source, k, value, entry)
        if entry.tail is None:  # now from position 0
            start = _plus(start, "past" if ctx.is_new(index) else "")
        else:
            start = _plus(start, count_text(ctx, entry))
            apart = f"{numbers(ctx)}, {count_text(ctx, entry)}" if ctx.ends else ""
    elif streamed and ctx.past and is_new(ctx, source, own) != ctx.is_new(index):
        start = _plus(start, "past") if ctx.is_new(index) else _plus(start, "-past")
    elif not streamed and ctx.past and ctx.is_new(index):
        start = _plus(start, "past")
    if left is not None:
        value = edges.beside(ctx, source, k, value, left, before=True)
        start = _plus(start, "1")
    if right is not None:
        value = edges.beside(ctx, source, k, value, right, before=False)
    dim = value.dims.index(f"@{k}")  # joined with what came before, the dimensions may lie in another order
    length = ctx.length(index)
    if window is None:
        dims = tuple(index if d == f"@{k}" else d for d in value.dims)
        text = f"{ctx.helper('_span')}({value.text}, {dim}, {start}, {length})"
        if apart:
            text = f"{ctx.helper('_spanned')}({value.text}, {dim}, {start}, {length}, {apart})"
        return Value(text, dims, value.dtype), True
    other, sign = window
    width = ctx.length(str(other.attr))
    dims = (*(index if d == f"@{k}" else d for d in value.dims), str(other.attr))
    if sign < 0:
        start = _plus(start, f"1 - {width}")
    text = f"{ctx.helper('_windows')}({value.text}, {dim}, {start}, {length}, {width})"
    if apart:
        text = f"{ctx.helper('_windowed')}({value.text}, {dim}, {start}, {length}, {width}, {apart})"
    return Value(text + (".flip(-1)" if sign < 0 else ""), dims, value.dtype), True


def record(ctx: Context, source: Source) -> StateEntry | None:
    """What the state holds of a tensor, its boundary apart."""
    return ctx.records.get(source.name)


def in_state(ctx: Context, source: Source, edge: Edge) -> bool:
    """Does an edge before the first position stand in what the state holds? A read meets it there: a call that goes on from
    a state counts its positions from 0 again, and none of them is the edge's."""
    own, point = source.own[edge.position], build.value_of(edge.point)
    entry = record(ctx, source) if ctx.stateful and ctx.on_stream(own) and is_new(ctx, source, own) else None
    return entry is not None and entry.tail is not None and isinstance(point, int) and point < 0


def count_text(ctx: Context, entry: StateEntry) -> str:
    """How many positions a state holds of a tensor."""
    return "past" if entry.tail is None else size_value(ctx, entry.tail).at(SUM)


def state_path(ctx: Context, name: str) -> str:
    """`state["o"]["S"]`"""
    paths = record_paths(e.name for e in state_record(ctx.system))
    return "state" + "".join(f'["{part}"]' for part in paths[name])


def past_values(ctx: Context, source: Source, k: int, value: Value, entry: StateEntry) -> Value:
    """The entries before the first new position, with the time axis: from the state, else the edges there and zeros."""
    if entry.name in ctx.histories and source.node is None:
        return ctx.histories[entry.name]
    order = tuple(source.own) if not ctx.batched else (BATCH, *source.own)
    dim = order.index(source.own[k])
    count = count_text(ctx, entry)
    empty = edges.nothing(ctx, source, k, value.dtype, count)
    text = empty if entry.tail is None else edges.edges_before(ctx, source, k, value.dtype, entry.tail) or empty
    held = _at_keys(ctx, source, state_path(ctx, entry.name))
    if entry.tail is build.ONE:
        held += f".unsqueeze({dim})"
    if source.keys:
        held = _held_beside(ctx, source, held, entry, dim, empty)
    made = Value(f"{text} if state is None else {held}", order, value.dtype, CHOICE)
    width = "1" if entry.tail is build.ONE else count
    lengths = [width if d == source.own[k] else ctx.dim_text(d) for d in order]
    bound_value = ctx.bind(f"{source.name}_past", made, lengths)
    if entry.across:
        whole = expressions.full(ctx, value, order, value.dtype)
        bound_value, ctx.windows[source.name] = ranks.window(ctx, source.name, whole, bound_value, dim, lengths)
    if source.node is None and not ctx.loops:
        ctx.histories[entry.name] = bound_value
    return bound_value


def cross(ctx: Context, tensor: Tensor) -> None:
    """Of a tensor whose last positions go from piece to piece, what lies before this one: before any loop asks for it."""
    entry, place = ctx.records.get(tensor.name), ctx.places[tensor.name]
    if entry is not None and entry.across and isinstance(place, Stored):
        ctx.widened.add(tensor.name)
        source = Source(place.value, tensor.indices, tensor.edges, tensor.name)
        past_values(ctx, source, entry.position, place.value, entry)


def _at_keys(ctx: Context, source: Source, held: str, without: int | None = None) -> str:
    """What a state holds of a tensor, or of what lies at one position of its index `without`, where loops stand."""
    for number, j in enumerate(j for j in source.keys if j != without):
        assert source.node is not None
        at, place = j + 1 - number - (without is not None and without < j), source.node.args[j]
        text = expressions.emit(ctx, place).text
        if reads.within(ctx, ctx.system.tensors[source.name].indices[j], place, everywhere=True):
            held += f".select({at}, {text})"
        else:
            held = f"{ctx.helper('_select')}({held}, {at}, {text})"
    return held


def _held_beside(ctx: Context, source: Source, held: str, entry: StateEntry, dim: int, zeros: str) -> str:
    """Where a looped position leaves its axis by an edge, the state has the earlier entries under the edge's name."""
    assert source.node is not None
    tensor = ctx.system.tensors[source.name]
    for edge in tensor.edges:
        beside = ctx.records.get(edge.tensor)
        subscript = source.node.args[edge.position]
        if edge.position not in source.keys or beside is None or not reads.possible(ctx, subscript, edge.point):
            continue
        other = _at_keys(ctx, source, state_path(ctx, beside.name), edge.position)
        if beside.tail is build.ONE:
            other += f".unsqueeze({dim})"
        if beside.tail is not entry.tail:  # as many entries as here, zeros before them
            joined = f"{ctx.helper('_join')}([{zeros}, {other}], {dim})"
            other = f"{ctx.helper('_last')}({joined}, {dim}, {count_text(ctx, entry)})"
        test = expressions.emit(ctx, build.make("eq", subscript, edge.point))
        held = f"({other} if {test.text} else {held})"
    return held


def numbers(ctx: Context) -> str:
    """The variable of the packed sequences' numbers at all positions."""
    return ctx.positions("number", "_sequence_numbers")


def join(ctx: Context, source: Source, k: int, value: Value, entry: StateEntry) -> Value:
    """The tensor with what came before it, dimensions named by slots."""
    if source.joined:
        return value
    slots = {n: f"@{j}" for j, n in enumerate(source.own)}
    if source.node is not None:
        found = _joined(ctx, source, k, value, entry)
    elif entry.name in ctx.joined:
        found = ctx.joined[entry.name]
    else:
        with ctx.before_loops():
            found = ctx.joined[entry.name] = _joined(ctx, source, k, value, entry)
    return replace(found, dims=tuple(slots.get(d, d) for d in found.dims))


def _joined(ctx: Context, source: Source, k: int, value: Value, entry: StateEntry) -> Value:
    new = replace(value, dims=tuple(source.own[int(d[1:])] if d.startswith("@") else d for d in value.dims))
    past = past_values(ctx, source, k, new, entry)
    order = past.dims
    wide, dim = expressions.full(ctx, new, order, new.dtype), order.index(source.own[k])
    text = behind(ctx, past.text, wide.text, dim)
    if ctx.ends and entry.tail is not None:
        text = f"{ctx.helper('_behind')}({past.text}, {wide.text}, {dim}, {ctx.ends}, {numbers(ctx)})"
    made = Value(text, order, new.dtype)
    lengths = [f"{count_text(ctx, entry)} + {ctx.dim_text(d)}" if d == source.own[k] else ctx.dim_text(d) for d in order]
    return ctx.bind(f"{source.name}_all", made, lengths)


def behind(ctx: Context, past: str, x: str, dim: int) -> str:
    """A tensor behind all that came before it."""
    if ctx.pasts:
        return f"{ctx.helper('_behind_pasts')}({past}, {x}, {dim}, {ctx.spans()})"
    return f"{ctx.helper('_join')}([{past}, {x}], {dim})"


def joined_first(ctx: Context, source: Source, node: Node, value: Value) -> tuple[Source, Value]:
    """A tensor that was computed before the loops, with what came before it, where loops hold another of its indices: it is
    put together once, and then taken apart."""
    held = [i for i, a in zip(source.own, node.args, strict=True) if a.op == "index" and str(a.attr) in ctx.fixed]
    entry = record(ctx, source) if ctx.stateful and source.node is None else None
    for k, (own, subscript) in enumerate(zip(source.own, node.args, strict=True)):
        here = subscript.op == "index" and reads.direct(ctx, source, own, str(subscript.attr))
        if entry is None or here or not ctx.on_stream(own) or not is_new(ctx, source, own) or not {*held} - {own}:
            continue
        return replace(source, joined=True), join(ctx, source, k, value, entry)
    return source, value


def origin(ctx: Context, source: Source, k: int, subscript: Node, value: Value) -> tuple[Value, str, Node]:
    """For a gather along `@k`: the value to take from, the position that its first entry has, and the subscript."""
    own = source.own[k]
    if not ctx.on_stream(own) or not is_new(ctx, source, own):
        return value, "", subscript
    entry = record(ctx, source) if ctx.stateful else None
    if entry is None or not source.joined and _is_new(ctx, subscript):
        return value, "past" if ctx.past else "", subscript
    value = join(ctx, source, k, value, entry)
    if entry.tail is None:
        return value, "", subscript
    count = size_value(ctx, entry.tail).at(PRODUCT)
    boundary = ctx.records.get(f"{source.name}@boundary")
    if boundary is not None and boundary.boundary is subscript and ctx.past:
        value = _behind_boundary(ctx, source, k, value, boundary)
        oldest = build.sub(build.make("first", attr=str(ctx.system.stream)), build.add(entry.tail, build.ONE))
        return value, f"(past - {count} - 1)", build.make("maximum", subscript, oldest)
    return value, f"(past - {count})" if ctx.past else f"-{count}", subscript


def _is_new(ctx: Context, subscript: Node) -> bool:
    """Is a position of the stream known not to lie before the first new one?"""
    if subscript.op == "index" and ctx.is_new(str(subscript.attr)):
        return True
    first = build.make("first", attr=str(ctx.system.stream), dtype="int")
    before = upper_bound(ctx.system, difference(first, subscript), ctx.guards)
    return before is not None and before <= 0


def _behind_boundary(ctx: Context, source: Source, k: int, value: Value, boundary: StateEntry) -> Value:
    """The tensor and its last values before, behind what the state has kept of the last boundary, if that is older."""
    slots = [d for d in value.dims if d != f"@{k}"]
    dim = value.dims.index(f"@{k}")
    shape = ", ".join(ctx.dim_text(source.own[int(d[1:])] if d.startswith("@") else d) for d in slots)
    kind = expressions.KINDS[value.dtype]
    path = state_path(ctx, boundary.name)
    path = _at_keys(ctx, source, path, ctx.system.tensors[source.name].indices.index(source.own[k]))
    held = f"torch.zeros({shape}, dtype={kind}, device=device) if state is None else {path}"
    kept = ctx.bind(f"{source.name}_kept", Value(held, (), value.dtype, CHOICE), [shape])
    text = f"{ctx.helper('_join')}([{kept.text}.unsqueeze({dim}), {value.text}], {dim})"
    return replace(value, text=text, level=ATOM)
