"""One generated function: sizes, inputs, the equations in the order of the schedule, outputs, and the state.

Architecture invariant: the same text serves every form; what a form changed is in the system.
Entry point: `write_body`.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Step, schedule
from seqdsl.ir.node import read_names
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.state import StateEntry, record_paths
from seqdsl.ir.system import System, Tensor, sources

from . import apart, expressions, history, ranks, reads, recurrence, stateless
from .context import Block, Context, Layered, Looped, Source, Stored
from .gathered import with_gathered_sums
from .inlining import SUPPORT_FUNCTIONS
from .loops import sink
from .names import Names
from .packed import packing
from .prologue import Stepping, literal, nest, stepping, write_prologue
from .readers import readers_of, uses
from .shared import shared, write_shared
from .sizes import total
from .stateless import with_state_alone
from .tables import tables, with_tables, write_tables
from .target import Target
from .values import ATOM, BATCH, CHOICE, COMPARE, Value, permuted, plain


def parameter_places(ctx: Context) -> None:
    """Where each parameter is: `self.q.weight`, or one for each layer."""
    from .module import attribute_path

    for tensor in ctx.system.params():
        depth = sum(p.startswith("<") for p in tensor.path)
        if depth:
            ctx.places[tensor.name] = Layered(tensor.path, depth)
        else:
            path = ctx.parameters + ".".join(attribute_path(p) for p in tensor.path)
            ctx.places[tensor.name] = Stored(Value(path, tensor.indices, tensor.dtype, weight=True))


def input_names(system: System, target: Target) -> dict[str, str]:
    """The argument of each input."""
    names = Names({*SUPPORT_FUNCTIONS, *target.names(), *([ranks.GROUP] if ranks.crosses(system) else [])})
    return {t.name: names.fresh(t.name) for t in system.inputs()}


def write_body(
    system: System,
    *,
    indent: int,
    layer: bool,
    known: dict[str, str],
    arguments: dict[str, str],
    options: dict[str, str],
    taken: set[str],
    target: Target,
) -> tuple[list[str], Context]:
    """The lines of the function, from the check of its inputs to its `return`."""
    steps = stepping(system)
    kept = frozenset({*(e.tensor for e in steps.entries), *system.finals.values()})
    system = with_gathered_sums(with_tables(system, kept))
    names = Names({*taken, *arguments.values(), *options.values(), *SUPPORT_FUNCTIONS, *target.names()})
    ctx = Context(system, names, Block(indent + 1), options="self." if layer else "", target=target)
    _tell(ctx, steps, arguments, options)
    chains = target.chains
    late = _late(system, steps, chains.keeps() if chains else set())
    ctx.late = frozenset(late)
    exact = tables(system, kept | ctx.late)
    plan = schedule(system)
    early = [s for s in plan if exact.issuperset(s.tensors())]
    plan = tuple(s for s in plan if s not in early)
    plan = plan if chains and chains.one_position else sink(system, plan)
    plan = tuple(s for s in plan if not (isinstance(s, Compute) and s.tensor in late))
    plan = chains.order(system, plan) if chains else apart.set_apart(ctx, plan)

    def execute(step: Step) -> None:
        recurrence.execute(ctx, step, readers_of(ctx, step, steps))

    if early:
        write_tables(ctx, early, execute)
    together = shared(system, plan, exact, kept) if not chains else []
    plan = tuple(s for s in plan if s not in together)
    halves, waiting = with_state_alone(system, plan, kept | {*system.outputs}) if ctx.stateful and not chains else ({}, ())
    for tensor in system.inputs():
        history.cross(ctx, tensor)
    if together:
        write_shared(ctx, together, execute)
    for step in plan:
        if isinstance(step, Compute) and step.tensor in waiting:
            continue
        if isinstance(step, Compute) and step.tensor in halves:
            stateless.write(ctx, step.tensor, halves[step.tensor], frozenset(waiting))
        elif not (chains and chains.write(ctx, step)):
            execute(step)
    results = [_output(ctx, system.tensors[n]) for n in system.outputs]
    results = [f"{ctx.ranks}.joined({text})" for text in results] if ctx.ranks else results
    _finish(ctx, results, steps, late)
    body = ctx.block.lines
    return write_prologue(ctx, indent, layer, known, arguments, _inputs(ctx, arguments), steps, body), ctx


def _tell(ctx: Context, steps: Stepping, arguments: dict[str, str], options: dict[str, str]) -> None:
    """What a function knows before its equations: what a state holds, how ranks and packed sequences are told apart, the
    variables of options, parameters and inputs."""
    system, names = ctx.system, ctx.names
    ctx.stateful, ctx.past = not steps.refusal, steps.past
    if ranks.crosses(system):
        names.taken.add(ranks.GROUP)
        ctx.ranks = names.fresh("ranks")
        ctx.total = names.fresh("all_positions") if ranks.positions_cross(system) else ""
    ctx.batch = names.fresh("B" if "B" not in names.taken else "batch_size")
    ctx.option_variables |= options
    for entry in steps.entries:
        key = f"{entry.tensor}@boundary" if entry.boundary is not None else entry.tensor
        if key not in ctx.records or entry.tail is None:  # a cache of all values holds the last ones too,
            ctx.records[key] = entry
        if entry.tail is not None and entry.boundary is None:  # but not those before the first
            ctx.tails[key] = entry
    ctx.uses = uses(system)
    parameter_places(ctx)
    how = packing(system, steps, ctx.target)
    if not how.refusal:
        ctx.ends, ctx.stateless = "cu_seqlens", bool(how.stateless)
        ctx.pasts = names.fresh("pasts") if ctx.past and not ctx.stateless else ""
    _place_inputs(ctx, arguments)
    ctx.unread = _unread(system, steps)
    real = [arguments[t.name] for t in system.inputs() if t.dtype in ("real", "complex")]
    ctx.like = real[0] if real else ctx.like


def _unread(system: System, steps: Stepping) -> frozenset[str]:
    """The outputs that are nothing but that: no tensor reads them, nor does the state keep them."""
    read = {name for tensor in system.derived() for name in sources(system, tensor)}
    return frozenset(system.outputs) - read - {e.tensor for e in steps.entries} - set(system.finals.values())


def _late(system: System, steps: Stepping, together: set[str]) -> list[str]:
    """The tensors that only the state needs, in the order of computation: they are computed where it is asked for.
    `together` are computed with others, whatever is asked for."""
    readers: dict[str, set[str]] = {}
    for tensor in system.derived():
        for name in sources(system, tensor):
            readers.setdefault(name, set()).add(tensor.name)
    kept = {*system.outputs, *together, *(e.tensor for e in steps.entries if e.name not in system.finals)}
    plain = [s.tensor for s in schedule(system) if isinstance(s, Compute) and s.tensor not in kept]
    late: set[str] = set()
    for name in reversed(plain):
        if name in system.finals.values() or name in readers:
            late |= {name} if readers.get(name, set()) <= late else set()
    return [name for name in plain if name in late]


def _place_inputs(ctx: Context, arguments: dict[str, str]) -> None:
    """The variables of the inputs, and of their lengths."""
    for tensor in ctx.system.inputs():
        dims = (BATCH, *tensor.indices)
        for dim in dims:
            new_length(ctx, dim)
        full = any(ctx.on_stream(i) and not ctx.is_new(i) for i in tensor.indices)
        ctx.places[tensor.name] = Stored(Value(arguments[tensor.name], dims, tensor.dtype), full=full)


def _inputs(ctx: Context, arguments: dict[str, str]) -> list[str]:
    """Inputs in the dtype of the computation, unless none is read in it; a cached one with what the state holds of it."""
    lines = []
    for tensor in ctx.system.inputs():
        name = arguments[tensor.name]
        kind = {"real": "dtype", "int": "torch.long", "bool": "torch.bool", "complex": "complex_dtype"}[tensor.dtype]
        kind = kind if tensor.name in ctx.widened or tensor.name not in ctx.taken else f"{name}.dtype"
        cast = f"{ctx.helper('_input')}({name}, {ctx.batch}, {kind})"
        dims = (BATCH, *tensor.indices)
        entry = ctx.records.get(tensor.name) if ctx.stateful else None
        lines.append(f"{name} = {cast}  # [{', '.join(new_length(ctx, d) for d in dims)}]")
        if entry is not None and entry.tail is None and not ctx.is_new(tensor.indices[entry.position]):
            held = history.behind(ctx, history.state_path(ctx, entry.name), name, entry.position + 1)
            lines.append(
                f"{name} = {name} if state is None else {held}  # [{', '.join(ctx.dim_text(d) for d in dims)}]"
            )
    return lines


def new_length(ctx: Context, dim: str) -> str:
    """The length of an input's dimension: along the stream, the new positions."""
    if dim != BATCH and ctx.past and ctx.on_stream(dim):
        return ctx.dim_text(str(ctx.system.stream))
    return ctx.dim_text(dim)


def _output(ctx: Context, tensor: Tensor) -> str:
    """An output over all its dimensions, in the dtype of the inputs."""
    node = build.whole(tensor)
    with ctx.equation(tensor):
        value = reads.read(ctx, node)
        value = expressions.full(ctx, permuted(value, (BATCH, *tensor.indices)), (BATCH, *tensor.indices), tensor.dtype)
    value = plain(value)
    if tensor.dtype == "real":
        return f"{value.at(ATOM)}.to(out_dtype)"
    return value.text


# Operators whose result may be a part of an operand, and no copy.
MERE_PARTS = frozenset("read where re im conj stop sum".split())


def _finish(ctx: Context, results: list[str], steps: Stepping, late: list[str]) -> None:
    result = results[0] if len(results) == 1 else f"({', '.join(results)})"
    if steps.refusal:
        ctx.block.add(f"return {result}")
        return
    returned = ctx.names.fresh("result") if len(results) > 1 or not result.isidentifier() else result
    if returned != result:
        ctx.block.add(f"{returned} = {result}")
    ctx.block.add("if not return_state:")
    ctx.block.add(f"    return {returned}")
    for tensor, keys in ctx.unclosed:
        recurrence.close(ctx, tensor, keys)
    for name in [n for n in late if n not in ctx.places]:
        recurrence.compute(ctx, ctx.system.tensors[name])
    record: dict[str, object] = {}
    paths = record_paths(e.name for e in steps.entries)
    for entry in steps.entries:
        nest(record, paths[entry.name], kept(ctx, entry))
    if ctx.past:
        record["position"] = ctx.total or total(ctx, str(ctx.system.stream))
        if ctx.pasts:
            record["position"] = f"{ctx.helper('_positions')}({record['position']}, {ctx.spans()})"
    ctx.block.add(f"return {returned}, {literal(record)}")


def kept(ctx: Context, entry: StateEntry) -> str:
    """What the state keeps after the last position, in memory of its own: a caller may write into the inputs and outputs of a
    call, and a part of a tensor would hold the whole of it."""
    exposed = _exposed(ctx.system)
    if entry.name in ctx.system.finals:
        final = ctx.system.tensors[ctx.system.finals[entry.name]]
        place = ctx.places[final.name]
        assert isinstance(place, Stored)
        held = _whole(ctx, place.value, final.indices, final.dtype).at(ATOM)
        return f"{held}.clone()" if final.name in exposed else held
    if entry.tensor in ctx.lasts and entry.tail is build.ONE and entry.boundary is None:
        return ctx.lasts[entry.tensor] + ".clone()" * (entry.tensor in exposed)
    tensor, k = ctx.system.tensors[entry.tensor], entry.position
    if entry.across:
        last = ctx.windows[entry.tensor]
        return f"{last.at(ATOM)}.select({k + 1}, 0)" if entry.tail is build.ONE else last.text
    looped = ctx.finished.get(entry.tensor)
    end = total(ctx, tensor.indices[k])
    if entry.boundary is not None:
        return f"({_boundary(ctx, entry, tensor, looped, end)}).clone()"
    if looped is not None and looped.keys == (k,) and entry.tail is build.ONE:
        text = f"{looped.name}[{end} - 1]"
        return text if looped.primed else f"{looped.name}.get({end} - 1, {_missing(ctx, tensor, looped, f'{end} - 1')})"
    place = ctx.places[entry.tensor]
    assert isinstance(place, Stored)
    if place.full:
        return _cached(ctx, f"({place.value.text}.clone() if state is None else {place.value.text})", k + 1)
    source = Source(place.value, tensor.indices, tensor.edges, tensor.name)
    record = ctx.records[entry.tensor] if entry.tail is None else entry
    ctx.order = list(tensor.indices)
    if record.tail is build.ONE and ctx.target.chains and ctx.target.chains.one_position:  # of the one position that there is
        here = f"{_whole(ctx, place.value, tensor.indices, tensor.dtype).at(ATOM)}.select({k + 1}, 0)"
        return f"{here}.clone()" if tensor.name in exposed else here
    if record.tail is build.ONE:
        before = history.past_values(ctx, source, k, place.value, record)
        whole = _whole(ctx, place.value, tensor.indices, tensor.dtype)
        if ctx.ends:
            return f"{ctx.helper('_at_end')}({whole.text}, {before.text}, {k + 1}, {ctx.ends})"
        return f"({whole.at(ATOM)} if {ctx.length(tensor.indices[k])} else {before.text}).select({k + 1}, -1).clone()"
    joined = history.join(ctx, source, k, place.value, record)
    if entry.tail is None:
        return _cached(ctx, joined.text, k + 1)
    count = history.count_text(ctx, entry)
    text = f"{ctx.helper('_last')}({joined.text}, {k + 1}, {count})"
    if ctx.ends:
        held = history.count_text(ctx, record)
        text = f"{ctx.helper('_last_of')}({joined.text}, {k + 1}, {count}, {ctx.ends}, {held})"
    return f"{text}.select({k + 1}, 0)" if entry.tail is build.ONE else text


@once_for_each
def _exposed(system: System) -> frozenset[str]:
    """The tensors that may be parts of an input or an output: through equations that compute nothing."""
    near: dict[str, set[str]] = {name: set() for name in system.tensors}
    for tensor in system.derived():
        if tensor.rhs is not None and tensor.rhs.op in MERE_PARTS:
            for name in read_names(tensor.rhs):
                near[name].add(tensor.name)
                near[tensor.name].add(name)
    found, pending = set[str](), [*system.outputs, *(t.name for t in system.inputs())]
    while pending:
        if (name := pending.pop()) not in found:
            found.add(name)
            pending += near[name]
    return frozenset(found)


def _cached(ctx: Context, text: str, dim: int) -> str:
    """A cache, of packed sequences that of each."""
    return f"{ctx.helper('_apart')}({text}, {dim}, {ctx.spans()})" if ctx.pasts else text


def _whole(ctx: Context, value: Value, indices: tuple[str, ...], dtype: str) -> Value:
    """Every dimension of a tensor spelled out, the batch first."""
    return expressions.full(ctx, permuted(value, (BATCH, *indices)), (BATCH, *indices), dtype)


def _missing(ctx: Context, tensor: Tensor, looped: Looped, place: str) -> str:
    """What stands at a position that the loop has no entry for: the base case there, else 0."""
    text, (key,) = looped.zero, looped.keys
    rest = tuple(i for k, i in enumerate(tensor.indices) if k != key)
    for edge in tensor.edges:
        if edge.position == key and (point := build.value_of(edge.point)) is not None:
            value = reads.read(ctx, build.read(edge.tensor, [build.index(i) for i in rest], tensor.dtype))
            value = expressions.full(ctx, value, (BATCH, *rest), tensor.dtype)
            text = f"{value.at(CHOICE + 1)} if {place} == {point} else {text}"
    return text


def _boundary(ctx: Context, entry: StateEntry, tensor: Tensor, looped: Looped | None, end: str) -> str:
    """The value at the last boundary that the stream has passed."""
    assert entry.boundary is not None
    last = f"max({end} - 1, 0)" if entry.at_last_point else end  # nothing has passed: the first boundary
    with ctx.having(fixed={**ctx.fixed, str(ctx.system.stream): last}, caches=[*ctx.caches, {}]):
        if looped is not None and looped.keys == (entry.position,):
            place = expressions.emit(ctx, entry.boundary)
            return f"{looped.name}.get({place.text}, {_missing(ctx, tensor, looped, place.at(COMPARE + 1))})"
        subscripts = [entry.boundary if k == entry.position else build.index(i) for k, i in enumerate(tensor.indices)]
        value = reads.read(ctx, build.read(tensor.name, subscripts, tensor.dtype))
        dims = (BATCH, *(i for k, i in enumerate(tensor.indices) if k != entry.position))
        return expressions.full(ctx, value, dims, tensor.dtype).text
