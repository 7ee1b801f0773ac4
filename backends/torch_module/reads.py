"""Reads of tensors: by name where subscripts are indices, else shifts, windows, selections, or gathers.

What lies outside an axis is 0, an edge's tensor, or what a state holds (`ir.system`). Whether a subscript can leave its
axis is asked of `ir.order`; where it cannot, no mask is written. Inside a loop, values computed before it are taken
apart once (`unbind`), because slicing them at every step costs a full-size gradient each time. Entry point: `read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from seqdsl.ir import build
from seqdsl.ir.node import Node, read_names
from seqdsl.ir.order import difference, upper_bound
from seqdsl.ir.system import Edge, Tensor

from . import expressions, history
from .context import Context, Layered, Looped, Source, Stored
from .names import tuple_text
from .values import ATOM, BATCH, CHOICE, SUM, Value, merge, plain, spread


def read(ctx: Context, node: Node) -> Value:
    """A tensor at subscripts."""
    name = str(node.attr)
    if name in ctx.local:
        own, value = ctx.local[name]
        return _indexed(ctx, node, Source(value, own, (), name))
    tensor = ctx.system.tensors[name]
    place = ctx.place(name)
    if isinstance(place, Layered):
        return _layered(ctx, tensor, node, place)
    if isinstance(place, Looped):
        return _looped(ctx, tensor, node, place)
    return stored(ctx, tensor, node, place)


def _layered(ctx: Context, tensor: Tensor, node: Node, place: Layered) -> Value:
    lead = node.args[: place.depth]
    texts = [expressions.emit(ctx, a) for a in lead]
    if all(t.static and a.op == "index" for t, a in zip(texts, lead, strict=True)):
        path = layer_path(ctx, place.path, [t.text for t in texts])
        inner = Stored(Value(path, tensor.indices[place.depth :], tensor.dtype, weight=True))
        return _indexed(
            ctx,
            build.read(tensor.name, node.args[place.depth :], node.dtype),
            Source(inner.value, tensor.indices[place.depth :], (), tensor.name),
        )
    text = stacked_layers(ctx, place.path)
    return _indexed(
        ctx, node, Source(Value(text, tensor.indices, tensor.dtype, weight=True), tensor.indices, (), tensor.name)
    )


def layer_path(ctx: Context, path: tuple[str, ...], places: Sequence[str]) -> str:
    """`self.x[l].q.weight`"""
    from .module import attribute_path

    numbers = iter(places)
    text = ctx.parameters.removesuffix(".")
    for part in path:
        text += f"[{next(numbers)}]" if part.startswith("<") else f".{attribute_path(part)}"
    return text


def stacked_layers(ctx: Context, path: tuple[str, ...]) -> str:
    """All layers' tensors as one, leading indices first."""
    from .module import attribute_path

    markers = [k for k, p in enumerate(path) if p.startswith("<")]
    text, start = "", ctx.parameters.removesuffix(".")
    loops = []
    for number, k in enumerate(markers):
        begin = markers[number - 1] + 1 if number else 0
        start += "".join(f".{attribute_path(p)}" for p in path[begin:k])
        variable = f"layer{number or ''}"
        loops.append((variable, start))
        start = variable
    text = start + "".join(f".{attribute_path(p)}" for p in path[markers[-1] + 1 :])
    for variable, over in reversed(loops):
        text = f"torch.stack([{text} for {variable} in {over}])"
    return text


def _looped(ctx: Context, tensor: Tensor, node: Node, place: Looped) -> Value:
    """An entry of a tensor that a loop is computing."""
    subscripts = [node.args[k] for k in place.keys]
    keys = [expressions.emit(ctx, a) for a in subscripts]
    rest = [k for k in range(len(tensor.indices)) if k not in place.keys]
    dims = tuple(tensor.indices[k] for k in rest)
    entry_dims = ((BATCH,) if ctx.batched else ()) + dims
    if not all(k.static for k in keys):
        return _collected(ctx, tensor, node, place)
    key = ", ".join(k.text for k in keys)
    text, level = place.entry(key), ATOM
    current = all(a.op == "index" and str(a.attr) in ctx.fixed for a in subscripts)
    if not current and not place.primed and not (place.begins and _is_last(ctx, tensor, node, place.keys)):
        choices = _edge_choices(ctx, tensor, node, place, entry_dims)
        text = f"{text} if {f'({key})' if len(keys) > 1 else key} in {place.name} else {choices}"
        level = CHOICE
    value = Value(text, entry_dims, tensor.dtype, level)
    if level != ATOM:
        value = ctx.bind(f"{tensor.name}_before", value)
    inner = build.read(tensor.name, [node.args[k] for k in rest], node.dtype)
    edges = tuple(replace(e, position=rest.index(e.position)) for e in tensor.edges if e.position in rest)
    return _indexed(ctx, inner, Source(value, dims, edges, tensor.name, node=node, keys=place.keys))


def _is_last(ctx: Context, tensor: Tensor, node: Node, keys: tuple[int, ...]) -> bool:
    """Is it the entry of the last step, or where there is none the one before the first?"""
    return all(any(difference(node.args[k], n) == {None: -1} for n in _lengths(ctx, tensor.indices[k])) for k in keys)


def _edge_choices(ctx: Context, tensor: Tensor, node: Node, place: Looped, dims: tuple[str, ...]) -> str:
    """The value of an entry that the loop has not: an edge's where the position is its point, else zeros."""
    text = place.zero
    for edge in reversed([e for e in tensor.edges if e.position in place.keys]):
        subscript = node.args[edge.position]
        if not possible(ctx, subscript, edge.point):
            continue
        subscripts = [
            a if k in place.keys else build.index(tensor.indices[k])
            for k, a in enumerate(node.args)
            if k != edge.position
        ]
        target = ctx.system.tensors[edge.tensor]
        value = expressions.convert(ctx, read(ctx, build.read(target.name, subscripts, target.dtype)), tensor.dtype)
        value = expressions.full(ctx, value, dims, tensor.dtype)
        test = (
            f"{expressions.emit(ctx, subscript).at(CHOICE + 6)} == {expressions.emit(ctx, edge.point).at(CHOICE + 6)}"
        )
        if ctx.on_stream(tensor.indices[edge.position]) and tensor.name in ctx.records and not ctx.past:
            test = f"state is None and {test}"  # what a state holds is not outside
        text = f"({value.text} if {test} else {text})"
    return text


def _collected(ctx: Context, tensor: Tensor, node: Node, place: Looped) -> Value:
    """Entries of a loop that another one has finished, or all so far (zeros where none is yet), as one tensor."""
    static = [k for k in place.keys if not node.args[k].free - set(ctx.fixed) and not read_names(node.args[k])]
    moving = [k for k in place.keys if k not in static]
    lead = (BATCH,) if ctx.batched else ()
    names = {k: ctx.names.passing(f"n{number or ''}") for number, k in enumerate(moving)}
    key = ", ".join(names[k] if k in names else expressions.emit(ctx, node.args[k]).text for k in place.keys)
    text = f"{place.name}.get({f'({key})' if len(place.keys) > 1 else key}, {place.zero})"
    kept = [k for k in range(len(tensor.indices)) if k not in static]
    for k in reversed(moving):
        inner = [i for i in kept if i not in moving[: moving.index(k)]]
        dim = len(lead) + inner.index(k)
        shape = tuple_text(ctx.dim_text(d) for d in (*lead, *(tensor.indices[i] for i in inner)))
        own_index, length = tensor.indices[k], ctx.length(tensor.indices[k])
        new = ctx.past and ctx.on_stream(own_index) and ctx.is_new(own_index)  # what came before is joined to it below
        entries = f"[{text} for {names[k]} in range({f'past, past + {length}' if new else length})]"
        text = f"{ctx.helper('_stack')}({entries}, {dim}, {shape}, {expressions.KINDS[tensor.dtype]}, {ctx.like})"
    dims = (*lead, *(tensor.indices[k] for k in kept))
    value = ctx.bind(f"{tensor.name}_so_far", Value(text, dims, tensor.dtype))
    for edge in reversed([e for e in tensor.edges if e.position in static]):
        if possible(ctx, node.args[edge.position], edge.point):
            subscripts = [
                a if k in static else build.index(tensor.indices[k])
                for k, a in enumerate(node.args)
                if k != edge.position
            ]
            target = ctx.system.tensors[edge.tensor]
            other = expressions.full(ctx, read(ctx, build.read(target.name, subscripts, target.dtype)), dims, tensor.dtype)
            test = expressions.emit(ctx, build.make("eq", node.args[edge.position], edge.point))
            value = ctx.bind(
                f"{tensor.name}_so_far",
                replace(value, text=f"{other.at(CHOICE + 1)} if {test.text} else {value.text}", level=CHOICE),
            )
    inner_node = build.read(tensor.name, [node.args[k] for k in kept], node.dtype)
    edges = tuple(replace(e, position=kept.index(e.position)) for e in tensor.edges if e.position in kept)
    own = tuple(tensor.indices[k] for k in kept)
    return _indexed(ctx, inner_node, Source(value, own, edges, tensor.name, node=node, keys=tuple(static)))


def stored(ctx: Context, tensor: Tensor, node: Node, place: Stored) -> Value:
    """A read of a tensor that is in a variable: its history joined on where the read goes back."""
    for edge in tensor.edges:
        if node.args[edge.position] is edge.point:
            rest = node.args[: edge.position] + node.args[edge.position + 1 :]
            return read(ctx, build.read(edge.tensor, rest, ctx.system.tensors[edge.tensor].dtype))
    return _indexed(ctx, node, Source(place.value, tensor.indices, tensor.edges, tensor.name, full=place.full))


def possible(ctx: Context, subscript: Node, point: Node) -> bool:
    """May a subscript equal an edge's point?"""
    gap = difference(subscript, point)
    low = upper_bound(ctx.system, {t: -c for t, c in gap.items()}, ctx.guards)
    high = upper_bound(ctx.system, gap, ctx.guards)
    return not (low is not None and low < 0 or high is not None and high < 0)


def within(ctx: Context, own: str, subscript: Node, *, everywhere: bool = False) -> bool:
    """Is a subscript shown to lie inside the axis of `own`: where the guards hold, or `everywhere`?"""
    facts = () if everywhere else ctx.guards
    if subscript.op == "index" and _same_range(ctx, str(subscript.attr), own):
        return True
    low = upper_bound(ctx.system, difference(build.ZERO, subscript), facts)
    if low is None or low > 0:
        return False
    for length in _lengths(ctx, own):
        high = upper_bound(ctx.system, difference(subscript, build.sub(length, build.ONE)), facts)
        if high is not None and high <= 0:
            return True
    return False


def _lengths(ctx: Context, index: str) -> list[Node]:
    """The ways to say how long the axis of an index is."""
    size = ctx.system.index(index).size
    return ([size] if size is not None else []) + [build.size(index), build.size(ctx.axis(index))]


def _same_range(ctx: Context, a: str, b: str) -> bool:
    """Do two indices run over as many positions?"""
    if ctx.axis(a) == ctx.axis(b):
        return True
    x, y = ctx.system.index(a), ctx.system.index(b)
    if x.size is not None and x.size in (y.size, build.size(y.name)) or y.size is build.size(x.name):
        return True
    one, other = {x.name, x.axis}, {y.name, y.axis}
    return any(p in one and q in other or q in one and p in other for p, q in ctx.system.constraints)


def _indexed(ctx: Context, node: Node, source: Source) -> Value:
    """Apply the subscripts dimension by dimension; those that share an index together, as one gather."""
    value, own = source.value, source.own
    expand = [n for n, a in zip(own, node.args, strict=True) if n not in value.dims and not within(ctx, n, a)]
    if expand or any(not within(ctx, n, a) for n, a in zip(own, node.args, strict=True)) and value.static:
        value = expressions.full(ctx, plain(value), ctx.ordered(merge(value.dims, expand)), node.dtype)
    straight = all(
        a.op == "index" and str(a.attr) not in ctx.fixed and direct(ctx, source, n, str(a.attr))
        for n, a in zip(own, node.args, strict=True)
        if n in value.dims
    )
    targets = [str(a.attr) if a.op == "index" else "" for n, a in zip(own, node.args, strict=True) if n in value.dims]
    if straight and len(set(targets)) == len(targets):
        renames = {n: str(a.attr) for n, a in zip(own, node.args, strict=True) if n in value.dims}
        return replace(value, dims=tuple(renames.get(d, d) for d in value.dims))
    return _general(ctx, node, source, plain(value))


def direct(ctx: Context, source: Source, own: str, index: str) -> bool:
    """Is dimension `own`, as it lies in memory, exactly the range of `index`?"""
    if not _same_range(ctx, index, own):
        return False
    if not (ctx.past and ctx.on_stream(own)):
        return not (ctx.past and ctx.is_new(index))
    return history.is_new(ctx, source, own) == ctx.is_new(index)


def _general(ctx: Context, node: Node, source: Source, value: Value) -> Value:
    slots = [f"@{source.own.index(d)}" if d in source.own else d for d in value.dims]
    value = replace(value, dims=tuple(slots))
    source, value = history.joined_first(ctx, source, node, value)
    joint = _joint(ctx, node, value)
    pending: list[tuple[int, Node, str]] = []
    handled: set[int] = set()
    for k in sorted(range(len(source.own)), key=lambda k: _turn(ctx, source, node.args[k], source.own[k])):
        own, subscript = source.own[k], node.args[k]
        if f"@{k}" not in value.dims:
            continue
        cut = subscript.op != "index" and subscript.free & ctx.lengths.keys()  # a block need not begin at 0
        done = None if k in joint or cut else history.simple(ctx, source, k, own, subscript, value)
        if done is None:
            value, shift, subscript = history.origin(ctx, source, k, subscript, value)
            pending.append((k, subscript, shift))
        else:
            value, edges_done = done
            handled |= {k} if edges_done else set()
    if pending:
        value = _gathered(ctx, source, pending, value)
    for edge in reversed(source.edges):
        met = edge.position in handled or history.in_state(ctx, source, edge)
        if not met and possible(ctx, node.args[edge.position], edge.point):
            value = _edge(ctx, node, source, edge, node.args[edge.position], value)
    return value


def _turn(ctx: Context, source: Source, subscript: Node, own: str) -> tuple[int, bool, bool]:
    """How deep the loop lies that holds a subscript: what is taken apart before an outer one comes first. What is only
    given a name comes last, and the stream's dimension first: what an edge or a state has is joined on while all other
    dimensions are slots."""
    variable = ctx.fixed.get(str(subscript.attr)) if subscript.op == "index" else None
    depth = next((n for n, loop in enumerate(ctx.loops) if loop.variable == variable), len(ctx.loops))
    named = subscript.op == "index" and variable is None and direct(ctx, source, own, str(subscript.attr))
    return depth, named, not ctx.on_stream(own)


def _joint(ctx: Context, node: Node, value: Value) -> set[int]:
    """Positions whose subscripts share indices with one another."""
    free = {k: a.free - set(ctx.fixed) for k, a in enumerate(node.args) if f"@{k}" in value.dims}
    return {k for k, f in free.items() if any(f & other for j, other in free.items() if j != k)}


def _gathered(ctx: Context, source: Source, pending: list[tuple[int, Node, str]], value: Value) -> Value:
    places: dict[int, Value] = {}
    safe = True
    for k, subscript, shift in pending:
        place = expressions.emit(ctx, subscript)
        if shift:
            place = Value(f"{place.at(SUM)} - {shift}", place.dims, "int", SUM, place.static)
        places[value.dims.index(f"@{k}")] = expressions.tensor(ctx, place, "int")
        safe &= within(ctx, source.own[k], subscript, everywhere=True) and not shift
    dims = ctx.ordered(tuple(d for p in places.values() for d in p.dims))
    if BATCH in dims and BATCH in value.dims:  # each sequence of the batch has its own positions
        batch = Value(f"torch.arange({ctx.batch}, device=device)", (BATCH,), "int")
        text = value.text if value.level == ATOM else f"({value.text})"
        value = replace(
            value, text=f"{text}.expand({ctx.batch}, {', '.join(['-1'] * (len(value.dims) - 1))})", level=ATOM
        )
        places[value.dims.index(BATCH)] = batch
    order = sorted(places)
    texts = [spread(places[k], dims).text if k in places else (":" if safe else "None") for k in range(len(value.dims))]
    adjacent = order[-1] - order[0] + 1 == len(order)
    rest = [d for k, d in enumerate(value.dims) if k not in places]
    before = [d for k, d in enumerate(value.dims) if k not in places and k < order[0]] if adjacent else []
    result = (*before, *dims, *(d for d in rest if d not in before))
    if safe:
        while texts and texts[-1] == ":":
            texts.pop()
        return Value(f"{value.at(ATOM)}[{', '.join(texts)}]", result, value.dtype)
    return Value(f"{ctx.helper('_gather')}({value.text}, [{', '.join(texts)}])", result, value.dtype)


def _edge(ctx: Context, node: Node, source: Source, edge: Edge, subscript: Node, value: Value) -> Value:
    """The edge's tensor where the subscript is its point."""
    original = node
    rest = original.args[: edge.position] + original.args[edge.position + 1 :]
    if source.node is not None:  # some positions were looped away: take them from the full read
        full_position = [k for k in range(len(source.node.args)) if k not in source.keys][edge.position]
        rest = source.node.args[:full_position] + source.node.args[full_position + 1 :]
    target = ctx.system.tensors[edge.tensor]
    other = expressions.convert(ctx, read(ctx, build.read(target.name, rest, target.dtype)), value.dtype)
    test = expressions.emit(ctx, build.make("eq", subscript, edge.point))
    dims = ctx.ordered(merge(value.dims, other.dims, test.dims))
    if test.static:
        a, b = (expressions.full(ctx, v, dims, value.dtype) for v in (other, value))
        return Value(f"{a.at(CHOICE + 1)} if {test.at(CHOICE + 1)} else {b.at(CHOICE + 1)}", dims, value.dtype, CHOICE)
    texts = [spread(v, dims).text for v in (test, other, value)]
    return Value(f"torch.where({', '.join(texts)})", dims, value.dtype)


def at_loops(ctx: Context, value: Value) -> Value:
    """A value computed before the loops, at their current positions: taken apart once, then picked."""
    for loop in ctx.loops:
        index = next((d for d in value.dims if ctx.fixed.get(d) == loop.variable), None)
        if index is None:
            continue
        value = step(ctx, loop.variable, index, value)
    return value


def step(ctx: Context, variable: str, index: str, value: Value) -> Value:
    """One position of a dimension that a loop runs over, from a list made before the loop."""
    loop = next(s for s in ctx.loops if s.variable == variable)
    value = plain(value)
    key = (value.text, index)
    if key not in loop.steps:
        base = value.text if value.text.isidentifier() else f"{ctx.current}_operand"
        name = ctx.names.fresh(f"{base}_steps")
        dim = value.dims.index(index)
        loop.before.add(f"{name} = {value.at(ATOM)}.unbind({dim})")
        loop.steps[key] = name
    rest = tuple(d for d in value.dims if d != index)
    place = variable
    if ctx.past and ctx.is_new(index):
        place = f"{variable} - past"
    return replace(value, text=f"{loop.steps[key]}[{place}]", dims=rest, level=ATOM)
