"""The scan of a recurrence, over the smallest monoid that holds its steps: entries, frequencies, matrices, or entries of
another ring."""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import NoMatch, neither
from seqdsl.algebra.held import begins, has_boundaries, held_name, with_held
from seqdsl.algebra.lags import has_lags, with_companions
from seqdsl.forms.circular import to_spectral_scan
from seqdsl.forms.dense import to_matrix_scan
from seqdsl.forms.reads import some_positions
from seqdsl.forms.ring import to_ring_scan
from seqdsl.forms.scan import to_scan
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node
from seqdsl.ir.system import System, Tensor


def to_any_scan(system: System, loop: Loop) -> System:
    """The first of the scans that the update admits, with a state for each value that is read further back than one
    step. Raises `NoMatch` with every reason."""
    held = has_boundaries(system, loop)
    if held:
        system, loop = with_held(system, loop)
    if has_lags(system, loop):
        system, loop = with_companions(system, loop)
    reason: NoMatch | None = None
    whole = any(system.tensors[name].dtype == "int" for name in loop.tensors())  # the other scans reckon in reals
    for rewrite in (to_scan,) if whole else (to_scan, to_spectral_scan, to_matrix_scan, to_ring_scan):
        try:
            found = rewrite(system, loop)
            return _with_last_boundaries(found, loop) if held else found
        except NoMatch as other:
            reason = other if reason is None else neither(reason, other)
    assert reason is not None
    raise reason


def _with_last_boundaries(system: System, loop: Loop) -> System:
    """What the state record keeps of boundaries, from the held states: the last one may lie before this call."""
    finals, made = dict(system.finals), []
    for entry in system.record or ():
        held = held_name(entry.tensor)
        if entry.boundary is None or entry.tensor not in loop.tensors() or f"{held}@start" not in system.tensors:
            continue  # what only other equations read at a boundary is kept from its values
        tensor = system.tensors[entry.tensor]
        time = tensor.indices[entry.position]
        last: list[Node] = [build.index(i) for i in tensor.indices]
        last[entry.position] = build.sub(build.size(time), build.ONE)
        value = build.read(held, last, tensor.dtype)
        if not entry.at_last_point:
            own = build.read(tensor.name, last, tensor.dtype)
            value = build.where(begins(entry.boundary, build.size(time)), own, value)
        rest = tuple(i for i in tensor.indices if i != time)
        before = build.read(f"{held}@start", [build.index(i) for i in rest], tensor.dtype)
        rhs = build.where(some_positions(system, time), value, before)
        comment = f"{tensor.name} at the last boundary"
        made.append(Tensor(f"{entry.name}@final", rest, tensor.dtype, "derived", rhs, comment=comment))
        finals[entry.name] = made[-1].name
    return replace(system.with_tensors(*made), finals=finals)
