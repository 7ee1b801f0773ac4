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


_TABLES: dict[Any, list[Tensor]] = {}


def _rounded(
    tables: Callable[[torch.dtype], list[Tensor]], sizes: tuple[Any, ...] | None, dtype: torch.dtype, device: torch.device
) -> list[Tensor]:
    """Tables in double precision, where the device has it, in the dtype of the computation.

    Where `sizes` are all that they depend on, those of the last few are kept, and a call has copies of them.
    """
    key = tables.__qualname__, sizes, dtype, device
    stands_in = torch.compiler.is_compiling() or type(torch.empty((), device=device)) is not Tensor  # of one that is traced
    if key in _TABLES and not stands_in:
        return [x.clone() for x in _TABLES[key]]
    made = tables(dtype if device.type == "mps" else torch.float64)
    kinds = {torch.float64: dtype, torch.complex128: _complex_dtype(dtype)}
    found = [x.to(kinds.get(x.dtype, x.dtype)) for x in made]
    if sizes is not None and not stands_in and not any(x.requires_grad for x in found):
        for oldest in list(_TABLES)[:-7]:
            _TABLES.pop(oldest, None)
        _TABLES[key] = [x.clone() for x in found]
    return found


def _repeated(make: Callable[..., list[Tensor]], batch: int, *given: Tensor) -> list[Tensor]:
    """What is made of operands that lie along the batch; where they all repeat one sequence of it, made once."""
    if batch < 2 or any(x.stride(0) for x in given):
        return make(batch, *given)
    return [x.expand(batch, *x.shape[1:]) for x in make(1, *(x[:1] for x in given))]


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
    mixer: str,
    state: Any,
    batch: int,
    dtype: torch.dtype,
    shapes: dict[str, Any],
    path: str = "state",
    pasts: list[int] | None = None,
) -> Any:
    """The record with every tensor over the whole batch and in the dtype of the computation.

    `shapes` has the lengths behind the batch axis, None where any is right. A list is that of a cache, and begins with the
    dimension of its positions: packed sequences have as many each as `pasts` says, and come out one behind the other.
    Raises ValueError on another mixer's record.
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
            record[name] = _checked_state(mixer, x, batch, dtype, shape, at, pasts)
        elif isinstance(shape, list) and pasts is not None:
            record[name] = _state_entry(mixer, at, _one_cache(x, shape[0], pasts), 1, dtype, shape[1:])
        elif isinstance(shape, list):
            record[name] = _state_entry(mixer, at, x, batch, dtype, shape[1:])
        else:
            record[name] = _state_entry(mixer, at, x, batch, dtype, shape)
    return record


def _one_cache(x: Any, dim: int, pasts: list[int]) -> Any:
    """Caches of packed sequences, a list or a batch of them, one behind the other; what is none comes back as it is."""
    parts = list(x.split(1)) if isinstance(x, torch.Tensor) else x if isinstance(x, list) else []
    tensors = bool(parts) and all(isinstance(p, torch.Tensor) and p.dim() > dim for p in parts)
    if not tensors or [p.shape[dim] for p in parts] != pasts:
        return x
    rests = {(*p.shape[:dim], *p.shape[dim + 1 :]) for p in parts}
    return torch.cat(parts, dim) if len(rests) == 1 else x


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


def _lengthened(x: Tensor, dim: int, length: int, number: float) -> Tensor:
    """`x` with as many more entries of a dimension, all of them `number`, as make it `length` long."""
    return torch.cat([x, x.new_full((*x.shape[:dim], length - x.shape[dim], *x.shape[dim + 1 :]), number)], dim)


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Outside autocast, where the device has one: states and sums stay in the dtype of the computation."""
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _full_backward(backward: Callable[..., Any]) -> Callable[..., Any]:
    """What a function of autograd sends back is computed in the types that it has kept, wherever it is asked for: within
    autocast, products would be rounded to 16 bits, and fail beside what is not."""

    def run(ctx: Any, *grads: Tensor | None) -> Any:
        with _full_precision(next((g.device for g in grads if g is not None), torch.device("cpu"))):
            return backward(ctx, *grads)

    return run


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
