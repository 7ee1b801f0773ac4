"""Functions for a generated module's calls: checks of sizes, dtypes, packed sequences.

Architecture invariant: as for `runtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _exact(a: int, b: int) -> int:
    """a / b for sizes, which must be exact and positive."""
    if b == 0 or a % b or (a // b < 1 and a != 0):
        raise ValueError(f"a size is {a} / {b}, and must be a positive integer")
    return a // b


def _keep_complex(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A change of dtype for parameters that leaves complex ones complex: `module.to(float64)` would drop a part."""

    def changed(x: Tensor) -> Tensor:
        if not x.is_complex():
            return change(x)
        real, imaginary = change(x.real), change(x.imag)
        wide = torch.promote_types(real.dtype, torch.float32)
        return torch.complex(real.to(wide), imaginary.to(wide))

    return changed


def _whole_chunk(time: int) -> int:
    """One chunk for the whole sequence; in a traced graph, whose length may vary, the usual chunks."""
    return 64 if torch.compiler.is_compiling() else max(8, 1 << max(time - 1, 0).bit_length())


def _complex_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype == torch.float64 else torch.complex64


def _project(equation: str, x: Tensor, weight: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A product with a weight: in 16 bits where autocast or the weights ask for it, else in the dtype of x."""
    low = x.dtype if dtype is None else dtype
    return torch.einsum(equation, x.to(low), weight.to(low)).to(x.dtype)


def _input_sizes(mixer: str, inputs: dict[str, tuple[Any, str]], known: dict[str, int]) -> dict[str, int]:
    """The length of every axis, `batch` among them, from the inputs; each has its batch axis first, of size 1 or B."""
    sizes = dict(known)
    batch, names = 1, dict.fromkeys(known, "the module")
    for name, (x, axes) in inputs.items():
        wanted = axes.split()
        if not isinstance(x, torch.Tensor) or x.dim() != len(wanted) + 1:
            found = list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise ValueError(
                f"{mixer}: `{name}` must have the axes [batch{''.join(', ' + a for a in wanted)}], and is {found}"
            )
        for axis, size in zip(wanted, x.shape[1:], strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(
                    f"{mixer}: the axis `{axis}` has length {size} in `{name}` {list(x.shape)}, "
                    f"and {sizes[axis]} in {names[axis]}"
                )
            names.setdefault(axis, f"`{name}`")
        if x.shape[0] != 1:
            if batch not in (1, x.shape[0]):
                raise ValueError(f"{mixer}: `{name}` has batch size {x.shape[0]}, and other inputs {batch}")
            batch = x.shape[0]
    return {"batch": batch, **sizes}


def _equal_sizes(mixer: str, a: str, b: str, x: int, y: int) -> None:
    if x != y:
        raise ValueError(f"{mixer}: the axes `{a}` and `{b}` must have equal lengths, and have {x} and {y}")


def _at_least(label: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"{label} is {value}, and must be at least {least}")
    return value


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: float64 if any operand has it, else float32."""
    dtype = torch.float32
    for x in tensors:
        if x.is_floating_point() or x.is_complex():
            dtype = torch.promote_types(dtype, x.dtype.to_real() if x.is_complex() else x.dtype)
    return dtype


def _low_dtype(device: torch.device, *weights: Tensor) -> torch.dtype | None:
    """The 16-bit dtype for products with weights: autocast's, or the weights' own; None to stay in full precision."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    real = [w.dtype for w in weights if w.is_floating_point()]
    return real[0] if real and real[0].itemsize == 2 else None


def _output_dtype(*tensors: Tensor) -> torch.dtype | None:
    """The dtype of outputs: that of the floating-point inputs."""
    real = [x.dtype for x in tensors if x.is_floating_point()]
    dtype = real[0] if real else None
    for other in real[1:]:
        dtype = torch.promote_types(dtype, other) if dtype is not None else other
    return dtype


def _select_state(state: Any, place: int) -> Any:
    """The record of one sequence out of a batch of records."""
    if isinstance(state, dict):
        return {name: _select_state(value, place) for name, value in state.items()}
    if isinstance(state, list):
        return state[place]
    return state[place : place + 1] if isinstance(state, torch.Tensor) else state


def _stack_states(states: Sequence[Any]) -> Any:
    """Records of several sequences as one, along the batch; caches of different lengths stay a list."""
    first = states[0]
    if isinstance(first, dict):
        return {name: _stack_states([s[name] for s in states]) for name in first}
    if isinstance(first, torch.Tensor) and all(s.shape == first.shape for s in states):
        return torch.cat(list(states))
    if not isinstance(first, torch.Tensor) and all(s == first for s in states):
        return first
    return list(states)


def _run_packed(
    run: Callable[..., Any],
    inputs: Sequence[Tensor],
    dims: Sequence[int | None],
    out_dims: Sequence[int | None],
    cu_seqlens: Any,
    state: Any,
    return_state: bool,
) -> Any:
    """Each packed sequence on its own: nothing crosses a boundary. `dims` are the streamed dimensions."""
    ends = [int(n) for n in (cu_seqlens.tolist() if isinstance(cu_seqlens, torch.Tensor) else cu_seqlens)]
    total = next(x.shape[d] for x, d in zip(inputs, dims, strict=True) if d is not None)
    if len(ends) < 2 or ends[0] != 0 or ends[-1] != total or any(a > b for a, b in zip(ends, ends[1:], strict=False)):
        raise ValueError(f"cu_seqlens must rise from 0 to the packed length {total}, and is {ends}")
    if any(x.shape[0] != 1 for x in inputs):
        raise ValueError("packed sequences have batch size 1: all of them lie along one streamed axis")
    outputs, states = [], []
    for n, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        pieces = [x if d is None else x.narrow(d, start, end - start) for x, d in zip(inputs, dims, strict=True)]
        own = None if state is None else _select_state(state, n)
        y, last = run(*pieces, state=own, return_state=True) if return_state else (run(*pieces, state=own), None)
        outputs.append(y if isinstance(y, tuple) else (y,))
        states.append(last)
    joined = tuple(torch.cat([o[k] for o in outputs], 0 if d is None else d) for k, d in enumerate(out_dims))
    y = joined if len(joined) > 1 else joined[0]
    return (y, _stack_states(states)) if return_state else y
