"""Functions for a generated module's calls: checks of sizes, dtypes, packed sequences.

Architecture invariant: as for `runtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def _exact(a: int, b: int) -> int:
    """a / b for sizes, which must be exact and positive."""
    if b == 0 or a % b or (a // b < 1 and a != 0):
        raise ValueError(f"a size is {a} / {b}, and must be a positive integer")
    return a // b


def _init_linear(weight: Tensor, fan_in: int) -> None:
    """As torch.nn.Linear begins: uniform within 1 / sqrt(fan_in)."""
    bound = max(fan_in, 1) ** -0.5
    torch.nn.init.uniform_(weight, -bound, bound)


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


def _input_sizes(mixer: str, inputs: dict[str, tuple[Any, ...]], known: dict[str, int]) -> dict[str, int]:
    """The length of every axis, `batch` among them, from the inputs; each has its batch axis first, of size 1 or B.

    `inputs` maps a name to the tensor, its axes, and its kind if that is not real.
    """
    sizes = dict(known)
    batch, names = 1, dict.fromkeys(known, "the module")
    for name, (x, axes, *kind) in inputs.items():
        wanted = axes.split()
        if not isinstance(x, torch.Tensor) or x.dim() != len(wanted) + 1:
            found = list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise ValueError(
                f"{mixer}: `{name}` must have the axes [batch{''.join(', ' + a for a in wanted)}], and is {found}"
            )
        _check_kind(mixer, name, x, kind[0] if kind else "real")
        first, other = next(iter(inputs.items()))
        if x.device != other[0].device:
            raise ValueError(f"{mixer}: `{name}` is on {x.device}, and `{first}` on {other[0].device}")
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


def _check_kind(mixer: str, name: str, x: Tensor, kind: str) -> None:
    """Real, int, bool or complex, as declared: a conversion could lose something in silence."""
    exact = not x.is_floating_point() and not x.is_complex()
    fits = {
        "real": x.is_floating_point(),
        "int": exact and x.dtype != torch.bool,
        "bool": x.dtype == torch.bool,
        "complex": not exact,
    }
    if not fits[kind]:
        raise ValueError(f"{mixer}: `{name}` must be {kind}, and is {x.dtype}; convert it first")


def _input(x: Tensor, batch: int, dtype: torch.dtype) -> Tensor:
    """An input in the dtype of the computation, one entry for each sequence of the batch."""
    x = x.to(dtype)
    return x if x.shape[0] == batch else x.expand(batch, *x.shape[1:])


def _past(mixer: str, state: Any) -> int | torch.SymInt:
    """How many positions came before: the state counts them."""
    if state is None:
        return 0
    position: Any = state.get("position") if isinstance(state, dict) else None
    if not isinstance(position, int | torch.SymInt) or position < 0:
        raise ValueError(f"{mixer}: a state of this mixer has a `position`, and this one is no such state")
    return position  # a symbol, where lengths are traced


def _checked_state(
    mixer: str, state: Any, batch: int, dtype: torch.dtype, shapes: dict[str, Any], path: str = "state"
) -> Any:
    """The record with every tensor over the whole batch and in the dtype of the computation.

    `shapes` has the lengths behind the batch axis, None where any is right. Raises ValueError on another mixer's record.
    """
    if state is None:
        return None
    if not isinstance(state, dict) or set(state) != set(shapes):
        found = sorted(state) if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{mixer}: {path} must have the entries {sorted(shapes)}, and has {found}")
    record = {}
    for name, shape in shapes.items():
        x, at = state[name], f'{path}["{name}"]'
        if shape is None:
            record[name] = x
        elif isinstance(shape, dict):
            record[name] = _checked_state(mixer, x, batch, dtype, shape, at)
        else:
            record[name] = _state_entry(mixer, at, x, batch, dtype, shape)
    return record


def _state_entry(mixer: str, at: str, x: Any, batch: int, dtype: torch.dtype, shape: Sequence[Any]) -> Tensor:
    """One tensor of a record; after its lengths may stand its kind, if that is not real."""
    *shape, kind = shape if shape and isinstance(shape[-1], str) else (*shape, "real")
    found = list(x.shape) if isinstance(x, torch.Tensor) else None
    fits = found is not None and len(found) == len(shape) + 1 and found[0] in (1, batch)
    if not fits or any(n not in (None, m) for n, m in zip(shape, (found or [])[1:], strict=True)):
        wanted = ", ".join(["1" if batch == 1 else f"1 or {batch}", *("any" if n is None else str(n) for n in shape)])
        raise ValueError(f"{mixer}: {at} must have the shape [{wanted}], and has {found or type(x).__name__}")
    exact = not x.is_floating_point() and not x.is_complex()
    if x.is_complex() if kind == "real" else kind != "complex" and not (exact and (kind == "int" or x.dtype == torch.bool)):
        raise ValueError(f"{mixer}: {at} must be {kind}, and is {x.dtype}; convert it first")
    kinds = {"real": dtype, "complex": _complex_dtype(dtype), "int": torch.long, "bool": torch.bool}
    return _input(x, batch, kinds[kind])


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Outside autocast, where the device has one: states and sums stay in the dtype of the computation."""
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _equal_sizes(mixer: str, a: str, b: str, x: int, y: int) -> None:
    if x != y:
        raise ValueError(f"{mixer}: the axes `{a}` and `{b}` must have equal lengths, and have {x} and {y}")


def _declared_size(mixer: str, axis: str, found: int, declared: int) -> None:
    if found != declared:
        raise ValueError(f"{mixer}: the axis `{axis}` has length {found}, and its declaration says {declared}")


def _at_least(label: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"{label} is {value}, and must be at least {least}")
    return value


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: float64 if any operand has it, else float32."""
    dtype = torch.float32
    for x in tensors:
        if x.is_floating_point() or x.is_complex():
            wide = torch.float64 if x.dtype == torch.complex128 else torch.float32
            dtype = torch.promote_types(dtype, wide if x.is_complex() else x.dtype)
    return dtype


def _low_dtype(device: torch.device, *weights: Tensor) -> torch.dtype | None:
    """The 16-bit dtype for products with weights: autocast's, or the weights' own; None to stay in full precision."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
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


def _sequences(state: Any) -> int | None:
    """Of how many sequences a record is, None where it does not say."""
    if isinstance(state, dict):
        return next((n for x in state.values() if (n := _sequences(x)) is not None), None)
    return len(state) if isinstance(state, torch.Tensor | list) else None


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


def _sequence_ends(cu_seqlens: Any, total: int) -> list[int]:
    """`cu_seqlens` as integers that rise from 0 to the packed length."""
    if isinstance(cu_seqlens, torch.Tensor):
        cu_seqlens = cu_seqlens.tolist()
    ends = list(cu_seqlens) if isinstance(cu_seqlens, list | tuple) else []
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in ends)
    if not whole or len(ends) < 2 or ends[0] != 0 or ends[-1] != total or sorted(ends) != ends:
        raise ValueError(f"cu_seqlens must rise from 0 to the packed length {total}, and is {cu_seqlens}")
    return ends


def _packed_together(
    inputs: Sequence[Tensor], cu_seqlens: Any, state: Any, return_state: bool
) -> bool:
    """Can packed sequences go through one call? On a GPU that has their ends too, and where no state comes or goes.

    Their ends are then not looked at: the host would have to wait for them.
    """
    there = isinstance(cu_seqlens, torch.Tensor) and cu_seqlens.is_cuda and cu_seqlens.device == inputs[0].device
    return there and state is None and not return_state and all(x.shape[0] == 1 for x in inputs)


def _first_positions(cu_seqlens: Any, total: int, device: torch.device) -> Tensor | None:
    """[T] does a position begin a packed sequence? None where there is one sequence alone."""
    if cu_seqlens is None:
        return None
    found = torch.zeros(total + 1, dtype=torch.bool, device=device)
    return found.index_fill_(0, cu_seqlens.long(), True)[:total]


def _narrowed(x: Tensor, dims: tuple[int, ...], start: int, end: int) -> Tensor:
    """The part of one packed sequence: its positions along every streamed dimension."""
    for dim in dims:
        x = x.narrow(dim, start, end - start)
    return x


def _run_packed(
    run: Callable[..., Any],
    inputs: Sequence[Tensor],
    dims: Sequence[tuple[int, ...]],
    out_dims: Sequence[int | None],
    cu_seqlens: Any,
    state: Any,
    return_state: bool,
) -> Any:
    """Each packed sequence on its own: nothing crosses a boundary. `dims` are the streamed dimensions of each input."""
    total = next(x.shape[d[0]] for x, d in zip(inputs, dims, strict=True) if d)
    ends = _sequence_ends(cu_seqlens, total)
    if any(x.shape[0] != 1 for x in inputs):
        raise ValueError("packed sequences have batch size 1: all of them lie along one streamed axis")
    if state is not None and _sequences(state) not in (None, len(ends) - 1):
        raise ValueError(f"the state is of {_sequences(state)} sequences, and cu_seqlens of {len(ends) - 1}")
    outputs, states = [], []
    for n, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        pieces = [_narrowed(x, d, start, end) for x, d in zip(inputs, dims, strict=True)]
        own = None if state is None else _select_state(state, n)
        y, last = run(*pieces, state=own, return_state=True) if return_state else (run(*pieces, state=own), None)
        outputs.append(y if isinstance(y, tuple) else (y,))
        states.append(last)
    joined = tuple(_join_packed([o[k] for o in outputs], d) for k, d in enumerate(out_dims))
    y = joined if len(joined) > 1 else joined[0]
    return (y, _stack_states(states)) if return_state else y


def _join_packed(pieces: Sequence[Tensor], dim: int | None) -> Tensor:
    """An output along the streamed dimension; one that has none along the batch."""
    if dim is None and any(x.shape != pieces[0].shape for x in pieces):
        raise ValueError(
            "an output has no streamed axis, and a shape for each packed sequence: "
            f"{[list(x.shape[1:]) for x in pieces]}; run the sequences one by one"
        )
    return torch.cat(list(pieces), 0 if dim is None else dim)
