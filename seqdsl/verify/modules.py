"""Generated modules against the interpreter: values, states, stepping, gradients.

Used twice: quickly, before `seqc compile` writes anything (translation validation), and at length by `seqc test`.
Tolerances are those of DESIGN section 9, relative RMS against the float64 interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqdsl.diagnostics import SeqError
from seqdsl.forms import Derived
from seqdsl.ir.initial import is_saved, state_names
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.node import walk
from seqdsl.ir.sizes import SizeError, Sizes
from seqdsl.ir.system import System
from seqdsl.verify.inputs import draw_inputs, draw_sizes

Array = np.ndarray[Any, Any]
FLOAT32_VALUES = 2e-6
FLOAT64_VALUES = 1e-9
SMALL, LARGE = 3_000_000, 60_000_000  # entries that a check writes; more only where the text's sizes leave no choice


@dataclass(frozen=True)
class Mismatch:
    """Where a module and the interpreter differ, and by how much."""

    what: str
    error: float
    sizes: str


def relative_rms(found: Array, wanted: Array) -> float:
    """RMS of the difference over RMS of what is wanted; tiny values count as 1."""
    if found.shape != wanted.shape:
        return float("inf")
    if wanted.size == 0:
        return 0.0
    if wanted.dtype == bool or np.issubdtype(wanted.dtype, np.integer):
        return float(np.any(found != wanted))
    with np.errstate(all="ignore"):
        largest = float(np.max(np.abs(wanted), where=np.isfinite(wanted), initial=0))
        if largest > 1e100:  # the squares of what has blown up would overflow
            found, wanted = found / largest, wanted / largest
        gap = np.where((found == wanted) | (np.isnan(found) & np.isnan(wanted)), 0, found - wanted)
        scale = float(np.sqrt(np.mean(np.abs(np.where(np.isfinite(wanted), wanted, 0)) ** 2)))
        error = float(np.sqrt(np.mean(np.abs(gap) ** 2)))
    return float("inf") if np.isnan(error) else error / max(scale, 1e-3)


def has_state(system: System) -> bool:
    """Can its module be given a state, and give one back? Without a streamed axis there is none."""
    return system.record is not None and system.stream is not None


def module_sizes(system: System, sizes: Sizes) -> dict[str, int]:
    """What a module is built with: every option, and the lengths that its parameters need."""
    pending = [i for t in system.params() for i in t.indices]
    pending += [str(n.attr) for t in system.params() if t.rhs is not None for n in walk(t.rhs) if n.op == "size"]
    if pending:
        pending += [str(n.attr) for d in system.options.values() if d is not None for n in walk(d) if n.op == "size"]
    free: set[str] = set()
    seen: set[str] = set()
    while pending:
        axis = system.axis(pending.pop())
        size = system.index(axis).size
        if size is None:
            free.add(axis)
        elif axis not in seen:
            seen.add(axis)
            pending += [str(n.attr) for n in walk(size) if n.op == "size"]
    return {**sizes.options, **{n: sizes[n] for n in sorted(free)}}


def in_float64(backend: Any, system: System, text: str, class_name: str, sizes: Sizes) -> Any:
    """The module built in float64: one that is cast later has its constants rounded to float32 before."""
    import torch

    more = {"dtype": torch.float64} if system.params() else {}
    return backend.build_module(text, class_name, **module_sizes(system, sizes), **more).to(torch.float64)


def state_dict(system: System, sizes: Sizes, values: Mapping[str, Array]) -> dict[str, Array]:
    """Parameters, and constants that were drawn, by state_dict name."""
    found: dict[str, Array] = {}
    for tensor in system.params():
        if is_saved(tensor):
            for place, name in state_names(tensor, sizes):
                found[name] = values[tensor.name][place]
    return found


def validate_module(derived: Derived, text: str, class_name: str, backend: Any, *, seed: int = 0) -> bool:
    """A quick check that the text computes what the equations say; False where their own sizes are too large to try.
    Errors: `validation-failed`, with the evidence."""
    rng = np.random.default_rng(seed)
    tried = False
    for stream, most in ((5, SMALL), (1, SMALL), (1, LARGE)):
        if tried and most == LARGE:
            break
        try:
            sizes = draw_sizes(derived.system, rng, stream=stream, most=most)
        except SizeError:
            continue
        tried = True
        mismatch = compare(derived.system, text, class_name, backend, sizes, rng)
        if mismatch is not None:
            raise SeqError(
                "validation-failed",
                f"the generated module `{class_name}` differs from its equations; nothing is written",
                notes=(f"{mismatch.what}: relative error {mismatch.error:.2g}", mismatch.sizes),
                help="this is a bug of the compiler; `--form recurrent` may serve meanwhile",
            )
    return tried


def compare(
    system: System,
    text: str,
    class_name: str,
    backend: Any,
    sizes: Sizes,
    rng: np.random.Generator,
    *,
    harsh: bool = False,
    tolerance: float = FLOAT64_VALUES,
) -> Mismatch | None:
    """Outputs and final state of a float64 module and of the interpreter, on one draw."""
    import torch

    from seqdsl.ir.initial import initial_values

    inputs = draw_inputs(system, sizes, rng, harsh=harsh)
    values = {n: perturbed(v, rng) for n, v in initial_values(system, sizes, {}).items()}
    params = state_dict(system, sizes, values)
    named = {**sizes.lengths, **sizes.options}
    reference = interpret(system, inputs=inputs, params=params, sizes=named)
    module = in_float64(backend, system, text, class_name, sizes)
    weights = {backend.attribute_path(k): torch.as_tensor(np.asarray(v)) for k, v in params.items()}
    module.load_state_dict(weights, strict=True)
    tensors = [torch.as_tensor(np.asarray(inputs[t.name]))[None] for t in system.inputs()]
    steppable = has_state(system)
    with torch.no_grad():
        result = module(*tensors, return_state=True) if steppable else module(*tensors)
    outputs, state = result if steppable else (result, {})
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for name, output in zip(system.outputs, outputs, strict=True):
        error = relative_rms(_plain(output), np.asarray(reference["outputs"][name]))
        if not error <= tolerance:
            return Mismatch(f"output `{name}`", error, _shown(sizes))
    return _compare_states(state, reference["state"], sizes, tolerance)


def perturbed(value: Array, rng: np.random.Generator) -> Array:
    """Initial values moved a little, so that constant ones (zeros, ones) do not hide a transposed weight."""
    return value + 0.1 * rng.standard_normal(value.shape)


def _plain(tensor: Any) -> Array:
    return np.asarray(tensor.detach().resolve_conj().numpy()[0])


def _compare_states(
    found: Mapping[str, Any], wanted: Mapping[str, Any], sizes: Sizes, tolerance: float, prefix: str = ""
) -> Mismatch | None:
    for name, value in wanted.items():
        if isinstance(value, Mapping):
            mismatch = _compare_states(found.get(name, {}), value, sizes, tolerance, f"{prefix}{name}.")
            if mismatch is not None:
                return mismatch
            continue
        if name not in found:
            return Mismatch(f"state `{prefix}{name}` is missing", float("inf"), _shown(sizes))
        if name == "position":
            continue
        error = relative_rms(_plain(found[name]), np.asarray(value))
        if not error <= tolerance:
            return Mismatch(f"state `{prefix}{name}`", error, _shown(sizes))
    return None


def _shown(sizes: Sizes) -> str:
    return ", ".join(f"|{n}| = {v}" for n, v in sizes.lengths.items() if "." not in n)
