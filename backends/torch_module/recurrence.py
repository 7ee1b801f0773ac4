"""Recurrences as Python loops, in the order of `dependence.schedule`.

A loop holds the position of its axis fixed. A tensor it computes is a dictionary from positions to entries, `S[t]`; the
entries before the first (from a state, an edge, or zeros) are put in before the loop, so that `S[t - 1]` needs no test.
What does not depend on the loop is computed before it, over the whole axis, unless that would build a product wider
than its factors; tensors are taken apart once, before the loop. Entry point: `execute`.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, Step
from seqdsl.ir.node import Node
from seqdsl.ir.node import reads as reads_below
from seqdsl.ir.order import difference
from seqdsl.ir.state import LAST, StateEntry, state_record
from seqdsl.ir.system import Tensor

from . import apart, edges, expressions, history, levels, newton, packed, stepped, wavefront
from .context import Block, Context, Looped, LoopScope, Source, Stored, Unsupported
from .loops import hoist, is_apart, keys_of
from .names import tuple_text
from .readers import Readers
from .values import BATCH, CHOICE, PRODUCT, Value

MOST_STARTS = 10_000  # each is a line of the module


def execute(ctx: Context, step: Step, after: Readers) -> None:
    """Write one step of the schedule."""
    if isinstance(step, Compute):
        if step.tensor not in ctx.places:  # the fronts of a grid have given it
            compute(ctx, ctx.system.tensors[step.tensor])
    elif wavefront.is_wavefront(ctx, step):
        wavefront.run(ctx, step)
    elif levels.is_levels(ctx, step):
        levels.run(ctx, step, after.all)
    elif newton.is_solved(ctx.system, step):
        newton.solve(ctx, step)
    else:
        _outer_loop(ctx, step, after)


def compute(ctx: Context, tensor: Tensor) -> None:
    """`name = expression`, under the equation's own text."""
    assert tensor.rhs is not None
    with ctx.equation(tensor):
        ctx.comment(tensor)
        if tensor.kind == "carry":
            value = _carry(ctx, tensor)
        else:
            value = packed.at_end(ctx, tensor) or expressions.emit(ctx, tensor.rhs)
        value = expressions.convert(ctx, value, tensor.dtype)
        if value.static:
            value = expressions.tensor(ctx, value, tensor.dtype)
        ctx.places[tensor.name] = Stored(ctx.bind(tensor.name, value))
    history.cross(ctx, tensor)


def _carry(ctx: Context, tensor: Tensor) -> Value:
    """The state that entered, or the base case."""
    assert tensor.rhs is not None
    dims = (BATCH, *tensor.indices)
    start = expressions.convert(ctx, expressions.emit(ctx, tensor.rhs), tensor.dtype)
    if start.static:  # one number, which takes no memory for every entry
        start = expressions.tensor(ctx, start, tensor.dtype)
    start = expressions.full(ctx, start, dims, tensor.dtype)
    held = history.state_path(ctx, tensor.path[0])
    if tensor.path[-1] == LAST:
        entry = next(e for e in state_record(ctx.system) if e.name == tensor.path[0])
        held += f".select({entry.position + 1}, -1)"
    return Value(f"{start.at(CHOICE + 1)} if state is None else {held}", dims, tensor.dtype, CHOICE)


def _outer_loop(ctx: Context, loop: Loop, after: Readers) -> None:
    inside = set(loop.tensors())
    chains = ctx.target.chains
    hoist(ctx, loop, inside, inside & chains.keeps() if chains else set())
    if stepped.run(ctx, loop, after, lambda tensor, count: _starts(ctx, tensor, loop, count)):
        return
    keys = {name: tuple(p for _, p in sorted(keys_of(ctx, loop, name))) for name in inside}
    for name in [n for n in ctx.system.tensors if n in inside]:
        _open(ctx, ctx.system.tensors[name], keys, loop, after)
    with ctx.having(caches=[*ctx.caches, {}], fused=True):
        _loop(ctx, loop)
    for name in [n for n in ctx.system.tensors if n in inside]:
        _over(ctx, ctx.system.tensors[name], keys[name], after)


def _entry_dims(ctx: Context, tensor: Tensor, keys: tuple[int, ...]) -> tuple[str, ...]:
    return ((BATCH,) if ctx.batched else ()) + tuple(i for k, i in enumerate(tensor.indices) if k not in keys)


def _kind(tensor: Tensor) -> str:
    return {"real": "dtype", "complex": "complex_dtype", "int": "torch.long", "bool": "torch.bool"}[tensor.dtype]


def _open(ctx: Context, tensor: Tensor, all_keys: dict[str, tuple[int, ...]], loop: Loop, after: Readers) -> None:
    """The dictionary of a tensor's entries, with those that the loop's first steps read."""
    name, keys = ctx.names.fresh(tensor.name), all_keys[tensor.name]
    dims = _entry_dims(ctx, tensor, keys)
    shape = ", ".join(ctx.dim_text(d) for d in dims)
    zero = f"torch.zeros({shape + ', ' if shape else '(), '}dtype={_kind(tensor)}, device=device)"
    inside = set(loop.tensors())
    driven = {n: {ctx.system.tensors[n].indices[k] for k in all_keys[n]} for n in inside}
    found = [(r, driven[n]) for n in inside for r in reads_below(_rhs(ctx, n)) if r.attr == tensor.name]
    offsets = [_offsets(ctx, tensor, keys, r, here) for r, here in found]
    earlier = any(o is None or any(o) for o in offsets)
    entry = ctx.records.get(tensor.name) if ctx.stateful else None
    stream_key = next((k for k in keys if ctx.on_stream(tensor.indices[k])), None)
    if not earlier and not (entry is not None and stream_key in keys):
        readers = [n for n in inside if any(r.attr == tensor.name for r in reads_below(_rhs(ctx, n)))]
        local = tensor.name not in after.all and all(len(all_keys[n]) >= len(keys) for n in readers)
        ctx.places[tensor.name] = Looped(name, keys, zero, True, local=local)
        if not local:
            ctx.block.add(f"{name} = {{}}")
        return
    zero_name = ctx.names.fresh(f"{tensor.name}_zero")
    ctx.block.add(f"{zero_name} = {zero}")
    first: dict[str, str] = {}
    simple = len(keys) == 1 and all(o is not None for o in offsets)
    if simple:
        start = ctx.tails.get(tensor.name, entry) if ctx.stateful else None
        first, simple = _primed(ctx, tensor, keys[0], [o[0] for o in offsets if o], zero_name, start)
    ctx.block.add(f"{name} = {{{', '.join(f'{at}: {text}' for at, text in first.items())}}}")
    back = max((-o[0] for o in offsets if o), default=0) if simple and tensor.name not in after.all else 0
    begins = simple and not loop.reverse and bool(first) and (loop.axis != ctx.system.stream or not ctx.past)
    place = Looped(name, keys, zero_name, simple, begins, 0 if loop.reverse else back)
    ctx.places[tensor.name] = place
    boundary = ctx.records.get(f"{tensor.name}@boundary") if ctx.stateful else None
    further = entry is not None and entry.tail is not build.ONE and boundary is not None  # the next boundary may be there
    if (further or not simple) and entry is not None and stream_key is not None:
        _restore(ctx, tensor, place, stream_key, entry)
    if boundary is not None and boundary.boundary is not None and stream_key is not None:
        _restore(ctx, tensor, place, stream_key, boundary)


def _starts(ctx: Context, tensor: Tensor, loop: Loop, count: int) -> list[str]:
    """What a tensor that is read so many steps before is before the first one, the last value first."""
    key, entry = dict(loop.positions)[tensor.name], ctx.tails.get(tensor.name) if ctx.stateful else None
    dims = _entry_dims(ctx, tensor, (key, *_held(ctx, tensor)))
    shape = ", ".join(ctx.dim_text(d) for d in dims)
    zero = f"torch.zeros({shape}, dtype={_kind(tensor)}, device=device)"
    texts = list(_primed(ctx, tensor, key, [count if loop.reverse else -count], zero, entry)[0].values())
    texts = texts if loop.reverse else texts[::-1]
    return [ctx.bind(f"{tensor.name}_start", Value(text, dims, tensor.dtype, CHOICE)).text for text in texts]


def _held(ctx: Context, tensor: Tensor) -> list[int]:
    """The positions of the indices that loops around hold."""
    return [k for k, i in enumerate(tensor.indices) if i in ctx.fixed]


def _rhs(ctx: Context, name: str) -> Node:
    rhs = ctx.system.tensors[name].rhs
    assert rhs is not None
    return rhs


def _offsets(ctx: Context, tensor: Tensor, keys: tuple[int, ...], read: Node, here: set[str]) -> list[int] | None:
    """How far from the current position, that of the indices `here`, each looped subscript reads; None where that is no
    constant, as at the index of a sum over the same axis."""
    found = []
    for k in keys:
        subscript = read.args[k]
        index = [n for n in subscript.free if ctx.axis(n) == ctx.axis(tensor.indices[k])]
        if len(index) != 1 or index[0] not in here:
            return None
        gap = difference(subscript, build.index(index[0]))
        if set(gap) - {None}:
            return None
        found.append(int(gap.get(None, 0)))
    return found


def _primed(
    ctx: Context,
    tensor: Tensor,
    key: int,
    offsets: list[int],
    zero: str,
    entry: StateEntry | None,
) -> tuple[dict[str, str], bool]:
    """Position -> start for each position outside that the loop reads; False where an edge is of another kind."""
    index = tensor.indices[key]
    streamed = ctx.on_stream(index)
    length = ctx.length(index)
    items: dict[str, str] = {}
    for offset in sorted({o for o in offsets if o}):
        reach = range(offset, 0) if offset < 0 else range(offset)
        if len(reach) > MOST_STARTS:
            raise Unsupported(f"`{tensor.name}`, which reads itself {len(reach)} positions away: at most {MOST_STARTS}")
        for place in reach:
            at = str(place) if offset < 0 else (f"{length} + {place}" if place else length)
            if streamed and ctx.past:
                at = f"past + {at}" if offset > 0 else f"past - {-place}"
            text = zero
            for edge in tensor.edges:
                point = build.value_of(edge.point)
                hit = point == place if offset < 0 else edge.point.op == "size" and place == 0
                if edge.position == key and hit:
                    source = Source(Value(zero), tensor.indices, tensor.edges, tensor.name)
                    dims = _entry_dims(ctx, tensor, (key, *_held(ctx, tensor)))
                    found = edges.edge_value(ctx, source, edge, key)
                    found = expressions.full(ctx, expressions.convert(ctx, found, tensor.dtype), dims, tensor.dtype)
                    text = ctx.bind(f"{tensor.name}_start", found).text if not found.text.isidentifier() else found.text
            if offset < 0 and streamed and entry is not None:
                held = history.state_path(ctx, entry.name)
                if entry.tail is not build.ONE:
                    held = f"{ctx.helper('_last')}({held}, {key + 1}, {-place}).select({key + 1}, 0)"
                for number, k in enumerate(_held(ctx, tensor)):
                    held += f".select({k + 1 - number - (k > key)}, {ctx.fixed[tensor.indices[k]]})"
                text = f"{text} if state is None else {held}"
            items[at] = text
    if streamed and entry is not None and (last := "past - 1" if ctx.past else "-1") not in items:
        if entry.tail is not build.ONE:
            return {}, False
        items[last] = f"{zero} if state is None else {history.state_path(ctx, entry.name)}"
    return items, True


def _restore(ctx: Context, tensor: Tensor, place: Looped, key: int, entry: StateEntry) -> None:
    """Put the state's entries into a dictionary with several looped indices, or with a tail; or what it keeps of the
    last boundary, where that is further back."""
    from .sizes import size_value

    last = ""
    if entry.boundary is not None:
        with ctx.at({str(ctx.system.stream): "(past - 1)"}):
            last = expressions.emit(ctx, entry.boundary).text
    ctx.block.add("if state is not None:")
    others = [k for k in place.keys if k != key]
    names = {k: ctx.names.passing(f"i{n}") for n, k in enumerate(others)}
    held = history.state_path(ctx, entry.name)
    past = "past" if ctx.past else "0"
    depth = 1
    single = entry.tail is build.ONE or bool(last)
    if not single:
        count = "past" if entry.tail is None else size_value(ctx, entry.tail).at(PRODUCT)
        names[key] = ctx.names.passing("n")
        ctx.block.add("    " * depth + f"for {names[key]} in range({count}):")
        depth += 1
        at_key = f"{past} - {count} + {names[key]}"
    else:
        at_key = last or f"{past} - 1"
    for k in others:
        ctx.block.add("    " * depth + f"for {names[k]} in range({ctx.length(tensor.indices[k])}):")
        depth += 1
    removed = 0
    for k in range(len(tensor.indices)):
        if k == key and single:
            continue
        if k in names:
            dim = k + 1 - removed - (1 if single and k > key else 0)
            held += f".select({dim}, {names[k]})"
            removed += 1
    at = ", ".join(at_key if k == key else names[k] for k in place.keys)
    put = f".setdefault({f'({at})' if len(place.keys) > 1 else at}, {held})" if last else f"[{at}] = {held}"
    ctx.block.add("    " * depth + place.name + put)


def _loop(ctx: Context, loop: Loop) -> None:
    outer = ctx.block
    name, position = loop.positions[0]
    index = ctx.system.tensors[name].indices[position]
    variable = ctx.names.fresh(loop.axis)
    start, length = (
        ("past", f"past + {ctx.length(index)}") if ctx.past and ctx.is_new(index) else ("0", ctx.length(index))
    )
    body = Block(outer.indent + 1)
    scope = LoopScope(loop.axis, variable, start, outer)
    span = length if start == "0" else f"{start}, {length}"
    header = f"for {variable} in {'reversed(range(' + span + '))' if loop.reverse else 'range(' + span + ')'}:"
    before = ctx.fixed
    ctx.fixed = {**ctx.fixed, **{ctx.system.tensors[n].indices[p]: variable for n, p in loop.positions}}
    ctx.loops.append(scope)
    ctx.block = body
    ctx.caches.append({})
    chains = ctx.target.chains
    for step in chains.inside(loop) if chains else loop.body:
        if chains and chains.write(ctx, step):
            continue
        if isinstance(step, Loop) and is_apart(ctx, step):
            _apart(ctx, step)
        elif isinstance(step, Loop):
            _loop(ctx, step)
        elif step.tensor in ctx.late:
            _late_entry(ctx, ctx.system.tensors[step.tensor])
        else:
            _entry(ctx, ctx.system.tensors[step.tensor])
    for name, _ in loop.positions:
        place = ctx.places[name]
        if isinstance(place, Looped) and place.reach and len(place.keys) == 1:
            unless = f"if not {ctx.keep}: " if ctx.keep else ""
            body.add(f"{unless}{place.name}.pop({variable} - {place.reach}, None)")
    ctx.caches.pop()
    ctx.loops.pop()
    ctx.fixed, ctx.block = before, outer
    outer.add(header)
    outer.lines.extend(body.lines)


def _apart(ctx: Context, loop: Loop) -> None:
    """Entries of tensors that are computed for all their positions in a step of the loops around."""
    places, before = {name: ctx.places[name] for name in loop.tensors()}, ctx.hoisted
    if loop in ctx.functions:
        ctx.hoisted = dict(before)
        hoist(ctx, loop, set(loop.tensors()), set())
        whole = Readers(apart.read_outside(ctx, loop))
        written = stepped.run(ctx, loop, whole, lambda tensor, count: _starts(ctx, tensor, loop, count))
        assert written, f"`{loop.tensors()[0]}` is no function of its own after all"
        ctx.hoisted = before
    else:
        newton.solve(ctx, loop)
    for name, place in places.items():
        found, tensor = ctx.places[name], ctx.system.tensors[name]
        assert isinstance(place, Looped)
        if isinstance(found, Stored):
            assign(ctx, tensor, place, found.value)
        ctx.places[name] = place


def _late_entry(ctx: Context, tensor: Tensor) -> None:
    """An entry that only the state needs."""
    block = Block(ctx.block.indent + 1)
    with ctx.having(block=block, caches=[*ctx.caches, {}]):
        _entry(ctx, tensor)
    ctx.block.add("if return_state:")
    ctx.block.lines.extend(block.lines)


def _entry(ctx: Context, tensor: Tensor) -> None:
    """`S[t] = ..`: one entry of a tensor inside its loops."""
    place = ctx.places[tensor.name]
    assert isinstance(place, Looped) and tensor.rhs is not None
    with ctx.equation(tensor):
        ctx.comment(tensor)
        value = packed.at_end(ctx, tensor) or expressions.emit(ctx, tensor.rhs)
        assign(ctx, tensor, place, expressions.convert(ctx, value, tensor.dtype))


def assign(ctx: Context, tensor: Tensor, place: Looped, value: Value) -> None:
    """`S[t] = ..`: a value as one entry of a tensor inside its loops."""
    with ctx.equation(tensor):
        dims = _entry_dims(ctx, tensor, place.keys)
        if value.dims != dims or value.static:
            value = expressions.full(ctx, value, dims, tensor.dtype)
        key = ", ".join(ctx.fixed[tensor.indices[k]] for k in place.keys)
        shape = ", ".join(ctx.dim_text(d) for d in dims)
        ctx.block.add(f"{place.entry(key)} = {value.text}  # [{shape}]")


def _over(ctx: Context, tensor: Tensor, keys: tuple[int, ...], after: Readers) -> None:
    """After the loop: all entries as one tensor, where something reads it; what only the state needs, when that is asked for."""
    place = ctx.places[tensor.name]
    assert isinstance(place, Looped)
    ctx.finished[tensor.name] = place
    if tensor.name in after.entries | after.late:  # it may be short of what single reads ask for
        ctx.places[tensor.name] = replace(place, primed=False)
    if tensor.name in after.whole:
        close(ctx, tensor, keys)
    elif tensor.name in after.late:
        ctx.unclosed.append((tensor, keys))


def close(ctx: Context, tensor: Tensor, keys: tuple[int, ...]) -> None:
    """All entries of a loop's tensor as one tensor."""
    place = ctx.places[tensor.name]
    assert isinstance(place, Looped)
    whole = ((BATCH,) if ctx.batched else ()) + tensor.indices
    text = gathered(ctx, place.name, tensor, [tensor.indices[k] for k in keys], whole)
    name = ctx.names.fresh(f"{tensor.name}_")
    ctx.assign(name, Value(text, whole, tensor.dtype))
    ctx.places[tensor.name] = Stored(Value(name, whole, tensor.dtype))


def gathered(ctx: Context, name: str, tensor: Tensor, keys: list[str], dims: tuple[str, ...]) -> str:
    """What a dictionary has under the positions of indices, as one tensor of these dimensions."""
    variables = [ctx.names.passing(f"i{n}" if len(keys) > 1 else "n") for n in range(len(keys))]
    text = f"{name}[{', '.join(variables)}]"
    for number, index in reversed(list(enumerate(keys))):
        now = tuple(d for d in dims if d not in keys[:number])
        span = f"past, past + {ctx.length(index)}" if ctx.past and ctx.is_new(index) else ctx.length(index)
        shape = [ctx.dim_text(d) for d in now]
        entries = f"[{text} for {variables[number]} in range({span})]"
        text = f"{ctx.helper('_stack')}({entries}, {now.index(index)}, {tuple_text(shape)}, {_kind(tensor)}, {ctx.like})"
    return text
