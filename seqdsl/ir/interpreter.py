"""The reference interpreter: a system's equations, evaluated literally in float64. The truth that all else must equal.

A value is an array with named dimensions, one for each index it varies along; operands are aligned by name. A read is
a piece of what is stored, or a gather at integer positions, with `System`'s rules for what lies outside. Guards and
`where` travel down as a mask, so that nothing is read where nothing is evaluated. Tensors are computed in the order of
`dependence.schedule`; inside a loop the looped index is one position at a time, and every read is checked against what has
been computed: the interpreter trusts the schedule with nothing.

Architecture invariant: short, slow, never optimised. Units: as the equations have them; there is no batch axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, Step, schedule
from seqdsl.ir.evaluate import Evaluation, Run, Store, Value
from seqdsl.ir.initial import initial_values
from seqdsl.ir.sizes import SizeError, bind, elements
from seqdsl.ir.state import (
    LAST,
    POSITION,
    NotSteppable,
    flatten,
    needs_position,
    nest,
    record_paths,
    rows,
    state_record,
)
from seqdsl.ir.system import System, Tensor

Array = np.ndarray[Any, Any]
DTYPES = {"bool": np.bool_, "int": np.int64, "real": np.float64, "complex": np.complex128}


def interpret(
    system: System,
    *,
    inputs: Mapping[str, Any],
    params: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    state: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Outputs and the state after the last position.

    Shapes: inputs in the header's index order, without batch. `params` by state_dict name; those not given are drawn
    from their initialisers with a fixed seed. `sizes` holds options and lengths by name; names it does not need are
    ignored. `state` is what an earlier call returned.
    Errors: `SizeError` where shapes or sizes do not fit.
    """
    with np.errstate(all="ignore"):
        run = _prepare(system, inputs, dict(sizes or {}), state or {})
        for name, value in initial_values(system, run.sizes, params or {}).items():
            run.stores[name] = Store(value)
        for step in schedule(system):
            _execute(run, step, {})
        outputs = {n: _output(run, n) for n in system.outputs}
        return {"outputs": outputs, "state": _final_state(run)}


def _prepare(system: System, inputs: Mapping[str, Any], sizes: dict[str, int], state: Mapping[str, Any]) -> Run:
    flat = flatten(state)
    offset = int(flat.pop(POSITION, 0))
    steppable = True
    try:
        entries = tuple(e for e in state_record(system) if e.name != POSITION)
    except NotSteppable:
        entries, steppable = (), False
    names = {".".join(path): name for name, path in record_paths(e.name for e in entries).items()}
    flat = {names.get(key, key): value for key, value in flat.items()}
    arrays = {t.name: _input(t, inputs) for t in system.inputs()}
    lengths: dict[str, int] = {}
    for tensor in system.inputs():
        for index, length in zip(tensor.indices, arrays[tensor.name].shape, strict=True):
            total = length + (offset if system.axis(index) == system.stream else 0)
            if lengths.setdefault(system.axis(index), total) != total:
                raise SizeError(
                    "size-mismatch",
                    f"`{tensor.name}` has length {length} along `{index}`",
                    f"the axis `{system.axis(index)}` has length {lengths[system.axis(index)]} elsewhere",
                )
    for name, value in sizes.items():
        if name in system.indices and system.axis(name) not in lengths:
            lengths[system.axis(name)] = int(value)
    bound_sizes = bind(system, {n: int(v) for n, v in sizes.items() if n in system.options}, lengths)
    run = Run(system, bound_sizes, offset, entries=entries, steppable=steppable)
    flat = {name: _lengthened(run, name, np.asarray(value)) for name, value in flat.items()}
    past = _past(run, flat)
    for tensor in system.inputs():
        run.stores[tensor.name] = _with_past(run, tensor, arrays[tensor.name], past.get(tensor.name))
    for tensor in system.tensors.values():
        if tensor.kind == "carry" and tensor.path[0] in flat:
            held = np.asarray(flat[tensor.path[0]])
            place = next(e.position for e in entries if e.name == tensor.path[0])
            run.stores[tensor.name] = Store(held.take(-1, place) if tensor.path[-1] == LAST else held)
    for tensor in system.derived():
        if tensor.name in run.stores:
            continue
        elements(system, tensor, bound_sizes)
        shape = [run.extent(i)[1] for i in tensor.indices]
        store = _with_past(run, tensor, np.zeros(shape, DTYPES[tensor.dtype]), past.get(tensor.name))
        store.known = np.zeros(store.data.shape, bool)
        if store.axis is not None:
            before = store.data.shape[store.axis] - shape[store.axis]
            store.known[(slice(None),) * store.axis + (slice(0, before),)] = True
        run.stores[tensor.name] = store
    for entry in entries:
        if entry.boundary is not None and entry.name in flat and entry.tensor in run.stores:
            run.stores[entry.tensor].boundary = np.asarray(flat[entry.name])
    return run


def _input(tensor: Tensor, inputs: Mapping[str, Any]) -> Array:
    if tensor.name not in inputs:
        raise SizeError("missing-input", f"the input `{tensor.name}` is missing")
    array = np.asarray(inputs[tensor.name])
    if array.ndim != len(tensor.indices):
        raise SizeError(
            "size-mismatch",
            f"`{tensor.name}` has {array.ndim} axes, not {len(tensor.indices)}",
            f"{tensor.name}[{','.join(tensor.indices)}]",
        )
    return array.astype(DTYPES[tensor.dtype])


def _lengthened(run: Run, name: str, held: Array) -> Array:
    """What the state holds, rows over a further index of the stream as long as that is now."""
    entry = next((e for e in run.entries if e.name == name), None)
    further = rows(run.system, entry) if entry is not None else ()
    if not further or entry is None:
        return held
    number = Evaluation(run, {}).value(entry.beyond or build.ZERO, None).data
    more = run.sizes[str(run.system.stream)] - run.offset
    widths = [(0, more if k in further else 0) for k in range(held.ndim)]
    return np.pad(held, widths, constant_values=number.astype(held.dtype))


def _past(run: Run, flat: dict[str, Any]) -> dict[str, tuple[int, Array]]:
    """Tensor -> (axis, entries before the first position), from the state record."""
    past: dict[str, tuple[int, Array]] = {}
    for entry in run.entries:
        if entry.boundary is None and entry.name in flat and entry.tensor in run.system.tensors:
            array = np.asarray(flat[entry.name])
            single = array.ndim < len(run.system.tensors[entry.tensor].indices)
            whole = np.expand_dims(array, entry.position) if single else array
            if entry.tensor not in past or past[entry.tensor][1].shape[entry.position] < whole.shape[entry.position]:
                past[entry.tensor] = (entry.position, whole)  # a cache holds the last value too
    return past


def _with_past(run: Run, tensor: Tensor, data: Array, past: tuple[int, Array] | None) -> Store:
    stream = [k for k, i in enumerate(tensor.indices) if run.system.axis(i) == run.system.stream]
    if past is None:
        own = stream[0] if stream and tensor.indices[stream[0]].rstrip("'") == run.system.stream else None
        return Store(data, axis=own, base=run.offset if own is not None else 0)
    axis, before = past
    shapes = [list(x.shape[:axis] + x.shape[axis + 1 :]) for x in (before, data)]
    if shapes[0] != shapes[1]:
        raise SizeError("size-mismatch", f"the state `{tensor.name}` has the shape {shapes[0]}, and must have {shapes[1]}")
    whole = np.concatenate([before.astype(data.dtype), data], axis)
    return Store(whole, axis=axis, base=run.offset - before.shape[axis])


def _execute(run: Run, step: Step, at: dict[str, int]) -> None:
    """One step of the schedule; `at` holds the position of each looped axis."""
    if isinstance(step, Loop):
        name, position = step.positions[0]
        start, length = run.extent(run.system.tensors[name].indices[position])
        places = range(start, start + length)
        for place in reversed(places) if step.reverse else places:
            for inner in step.body:
                _execute(run, inner, {**at, step.axis: place})
        return
    assert isinstance(step, Compute)
    tensor = run.system.tensors[step.tensor]
    if tensor.kind == "carry" and run.stores[tensor.name].known is None:
        return  # the state record gave it
    looped: dict[str, int] = {}
    for index in tensor.indices:
        axis = run.system.axis(index)
        if axis in at and axis not in {run.system.axis(i) for i in looped}:
            looped[index] = at[axis]
    assert tensor.rhs is not None
    value = Evaluation(run, looped).value(tensor.rhs, None)
    store = run.stores[tensor.name]
    where = []
    for k, index in enumerate(tensor.indices):
        first, length = (store.base, store.data.shape[k]) if k == store.axis else (0, store.data.shape[k])
        start = run.extent(index)[0]
        where.append(looped[index] - first if index in looped else slice(start - first, length))
    free = tuple(i for i in tensor.indices if i not in looped)
    store.data[tuple(where)] = value.spread(free)
    assert store.known is not None
    store.known[tuple(where)] = True


def _output(run: Run, name: str) -> Array:
    tensor, store = run.system.tensors[name], run.stores[name]
    where = [
        slice(run.extent(i)[0] - (store.base if k == store.axis else 0), None) for k, i in enumerate(tensor.indices)
    ]
    return store.data[tuple(where)].copy()


def _final_state(run: Run) -> dict[str, Any]:
    """The record after the last position: reads at the last positions, by the ordinary rules."""
    system, stream = run.system, run.system.stream
    if stream is None or not (run.entries or run.steppable):
        return {}
    end = run.sizes[stream]
    flat: dict[str, Any] = {}
    for entry in run.entries:
        if entry.name in system.finals:
            flat[entry.name] = run.stores[system.finals[entry.name]].data.copy()
            continue
        tensor = system.tensors[entry.tensor]
        evaluation = Evaluation(run, {})
        if entry.boundary is not None:
            places = Evaluation(run, {stream: end}).value(entry.boundary, None).data.reshape(1)
            if entry.at_last_point and end > 0:  # the equation that reads the boundary, at its last point
                places = Evaluation(run, {stream: end - 1}).value(entry.boundary, None).data.reshape(1)
        else:
            count = end if entry.tail is None else int(evaluation.value(entry.tail, None).data)
            places = np.arange(end - count, end)
        subscripts = [
            Value(("@past",), places) if k == entry.position else evaluation._positions(i)
            for k, i in enumerate(tensor.indices)
        ]
        value = evaluation._read(tensor, subscripts, None)
        kept = value.spread(tuple("@past" if k == entry.position else i for k, i in enumerate(tensor.indices)))
        shape = [len(places) if k == entry.position else run.extent(i)[1] for k, i in enumerate(tensor.indices)]
        kept = np.broadcast_to(kept, shape)
        single = entry.tail is not None and entry.tail.attr == 1
        flat[entry.name] = np.take(kept, 0, axis=entry.position) if single else kept.copy()
    if needs_position(system):
        flat[POSITION] = end
    return nest(flat)
