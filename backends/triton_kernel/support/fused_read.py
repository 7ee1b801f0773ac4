"""Reads of a state whose decay varies along rows and columns, by Triton kernels, as operators that compilers see through."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...torch_module.support.chunk_linear_attention import chunk_linear_attention
from ...torch_module.support.segmented_read import segmented_read
from .attending import _sequences_of
from .launching import (
    OPS,
    _cdiv,
    _has_kernels,
    _joint_shape,
    _on_device,
    _one_device,
    _piece_length,
    _restarted,
    _unasked,
)
from .packed_rows import _alone, _Packed, _packed
from .read_kernels import _read_adjoint_kernel, _read_ends_kernel, _read_states_kernel

READ_STATE, READ_KEYS = 1024, 1024  # entries of a program's state, at least 16 columns of it; the most rows
READ_SEGMENT, READ_STEPS = 64, 4  # steps between states that are kept; steps whose rows are on their way at once


def _read_factor(name: str, x: Tensor) -> tuple[tuple[int, ...], dict[str, bool]]:
    """Strides of a factor [B, T, H, K, V] over each axis, 0 where its length is 1; and which axes it varies along."""
    strides = tuple(0 if size == 1 else stride for size, stride in zip(x.shape, x.stride(), strict=True))
    varies = {"KEYS": x.shape[3] > 1, "VALUES": x.shape[4] > 1}
    return strides, {f"{name}_{axis}": found for axis, found in varies.items()}


def _read_tile(keys: int, values: int) -> dict[str, int]:
    """All rows, a few columns."""
    wide = 1 << (keys - 1).bit_length()
    narrow = min(1 << (values - 1).bit_length(), max(16, READ_STATE // wide))
    return {"BK": wide, "BV": narrow, "num_warps": min(8, max(1, wide * narrow // 512))}


def _read_pieces(programs: int, time: int) -> tuple[int, int]:
    """(number, length) of the pieces of time, whole segments."""
    length = _piece_length(time, programs, 512, 4 * READ_SEGMENT, READ_SEGMENT)
    return _cdiv(time, length), length


def _read_ends(
    given: tuple[Tensor, ...], sizes: tuple[int, ...], flags: dict[str, Any], grid: tuple[int, int, int], reverse: bool
) -> tuple[Tensor, Tensor]:
    """The maps of the pieces, if there are several: [B, H, pieces, K, V]."""
    q, v = given[0], given[2]
    shape = (grid[0], grid[2], q.shape[-1], v.shape[-1])
    totals, ends = (q.new_empty(shape if grid[2] > 1 else (0,), dtype=torch.float32) for _ in range(2))
    if grid[2] > 1:
        _read_ends_kernel[(*grid[:2], grid[2] - 1)](*given, totals, ends, *sizes, REVERSE=reverse, **flags)
    return totals, ends


def _read_setup(
    q: Tensor, v: Tensor, x: Tensor, y: Tensor | None, log: bool, strict: bool, table: Tensor | None
) -> tuple[tuple[int, int, int], tuple[int, ...], dict[str, Any]]:
    """The grid, the sizes and strides, and the flags of every launch. A packed sequence is one piece."""
    batch, time, heads, keys = q.shape
    tile = _read_tile(keys, v.shape[-1])
    blocks, number = _cdiv(v.shape[-1], tile["BV"]), _sequences_of(batch, table)
    count, length = _read_pieces(batch * heads * blocks, time) if table is None else (1, time)
    (one, x_varies), (two, y_varies) = _read_factor("X", x), _read_factor("Y", x if y is None else y)
    sizes = (time, heads, keys, v.shape[-1], length, *one, *two)
    flags = {**x_varies, **y_varies, "TWO": y is not None, "LOG": log, "STRICT": strict, **tile}
    return (number * heads, blocks, count), sizes, flags


@torch.library.custom_op(
    f"{OPS}::read",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor x, Tensor? y, Tensor? start, Tensor? table, bool log, bool strict,"
    " bool keep, ScalarType dtype) -> (Tensor, Tensor, Tensor)",
)
def _read(
    q: Tensor, k: Tensor, v: Tensor, x: Tensor, y: Tensor | None, start: Tensor | None, table: Tensor | None,
    log: bool, strict: bool, keep: bool, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """o in `dtype`, the final state, and the state before every segment if it is to be kept for the adjoint."""
    o, final, marks = _read_empty(q, k, v, x, y, start, table, log, strict, keep, dtype)
    grid, sizes, flags = _read_setup(q, v, x, y, log, strict, table)
    second = x if y is None else y
    with _on_device(q):
        ends = _read_ends((q, k, v, v, x, second), sizes, flags, grid, False)
        _read_states_kernel[grid](
            q, k, v, x, second, final if start is None else start, o, final, marks, *ends, table, *sizes,
            HAS_START=start is not None, KEEP=keep, PACKED=table is not None, SEGMENT=READ_SEGMENT, STEPS=READ_STEPS, **flags,
        )  # fmt: skip
    return o, final, marks


@_read.register_fake
def _read_empty(
    q: Tensor, k: Tensor, v: Tensor, x: Tensor, y: Tensor | None, start: Tensor | None, table: Tensor | None,
    log: bool, strict: bool, keep: bool, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, heads, keys = q.shape
    state = (heads, keys, v.shape[-1])
    kept = batch * ((time + READ_SEGMENT - 1) // READ_SEGMENT) * heads * keys * v.shape[-1]
    marks = q.new_empty(kept if keep else 0, dtype=torch.float32)
    final = q.new_empty(_sequences_of(batch, table), *state, dtype=torch.float32)
    return v.new_empty(v.shape, dtype=dtype), final, marks


@torch.library.custom_op(
    f"{OPS}::read_adjoint",
    mutates_args=(),
    schema="(Tensor d_o, Tensor? d_final, Tensor q, Tensor k, Tensor v, Tensor x, Tensor? y, Tensor marks,"
    " Tensor? table, bool log, bool strict) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _read_adjoint(
    d_o: Tensor, d_final: Tensor | None, q: Tensor, k: Tensor, v: Tensor, x: Tensor, y: Tensor | None, marks: Tensor,
    table: Tensor | None, log: bool, strict: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, both factors and of the first state."""
    grid, sizes, flags = _read_setup(q, v, x, y, log, strict, table)
    planes, blocks, count = grid
    second = x if y is None else y
    parts = [q.new_empty(blocks, *q.shape, dtype=torch.float32) for _ in range(2)]
    d_v = torch.empty_like(v)
    number = _sequences_of(q.shape[0], table)
    factors = [_read_gradient(f, q, v, blocks, count if table is None else number) for f in (x, second)]
    d_start = q.new_empty(number, q.shape[2], q.shape[3], v.shape[-1], dtype=torch.float32)
    scratch = q.new_empty(planes * blocks * count, READ_SEGMENT, flags["BK"], flags["BV"], dtype=torch.float32)
    times = {"X_TIME": x.shape[1] > 1, "Y_TIME": second.shape[1] > 1}
    with _on_device(q):
        ends = _read_ends((q, k, v, d_o, x, second), sizes, flags, grid, True)
        _read_adjoint_kernel[grid](
            q, k, v, x, second, marks, scratch, d_o, d_o if d_final is None else d_final, *parts, d_v, *factors, d_start,
            *ends, table, q.shape[0], *sizes, HAS_FINAL=d_final is not None, PACKED=table is not None,
            SEGMENT=READ_SEGMENT, STEPS=READ_STEPS, **times, **flags,
        )  # fmt: skip
    d_q, d_k = (part.sum(0).to(q.dtype) for part in parts)
    d_x, d_y = (_read_summed(d, f) for d, f in zip(factors, (x, second), strict=True))
    return d_q, d_k, d_v, d_x, d_y, d_start


def _read_gradient(x: Tensor, q: Tensor, v: Tensor, blocks: int, count: int) -> Tensor:
    """Where the kernel leaves the gradient of a factor: see `_factor_store`."""
    batch, time, heads, keys = q.shape
    if x.shape[1] == 1:
        shape: tuple[int, ...] = (1, batch, count, heads, keys, v.shape[-1])
    else:
        rest = (keys if x.shape[3] > 1 else 1, v.shape[-1] if x.shape[4] > 1 else 1)
        shape = (1 if x.shape[4] > 1 else blocks, batch, time, heads, *rest)
    return q.new_empty(shape, dtype=torch.float32)


def _read_summed(found: Tensor, x: Tensor) -> Tensor:
    return found.sum(0).sum_to_size(x.shape).to(x.dtype)


@_read_adjoint.register_fake
def _read_adjoint_empty(
    d_o: Tensor, d_final: Tensor | None, q: Tensor, k: Tensor, v: Tensor, x: Tensor, y: Tensor | None, marks: Tensor,
    table: Tensor | None, log: bool, strict: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_start = q.new_empty(_sequences_of(q.shape[0], table), q.shape[2], q.shape[3], v.shape[-1], dtype=torch.float32)
    second = x if y is None else y
    d_q, d_k, d_v, d_x, d_y = (x.new_empty(x.shape) for x in (q, k, v, x, second))
    return d_q, d_k, d_v, d_x, d_y, d_start


def _read_keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, x, y, start, table, ctx.log, ctx.strict, *_ = inputs
    ctx.started = start is not None
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, x, y, output[2], table)


def _read_backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    q, k, v, x, y, marks, table = ctx.saved_tensors
    d_o = torch.zeros_like(v) if d_o is None else d_o.contiguous()
    d_final = None if d_final is None else d_final.contiguous()
    d_q, d_k, d_v, d_x, d_y, d_start = _read_adjoint(d_o, d_final, q, k, v, x, y, marks, table, ctx.log, ctx.strict)
    return d_q, d_k, d_v, d_x, None if y is None else d_y, d_start if ctx.started else None, *[None] * 5


_read.register_autograd(_read_backward, setup_context=_read_keep)


def fused_read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    start: Tensor | None = None,
    *,
    log: bool = True,
    strict: bool = False,
    size: int = READ_SEGMENT,
    times: Tensor | None = None,
    scale: float = 1.0,
    dots: torch.dtype | None = None,
    dtype: torch.dtype = torch.float32,
    first: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S[t] = a[t] S[t-1] + k[t] v[t]^T entry by entry; o[t] = scale q[t]^T S[t], strictly q[t]^T S[t-1]; final = S[T-1].

    Shapes:  q, k [B, T, H, K], v [B, T, H, V], decay and times [B, T, H, K, V], start [B, H, K, V] or None; axes may be
             1 -> o [B, T, H, V] in `dtype`, final [B, H, K, V] in float32
    Units:   a = exp(decay * times) if log, else a = decay * times; `times` is 1 if None, and never multiplied in memory
    Packed sequences begin at `first` [T]; with a start each, and final states, [N, H, K, V], if `starts` are their ends.
    There are no products of tiles, so `dots` is of no use here. float64, complex numbers, more than 1024 rows and the
    CPU are left to PyTorch.
    """
    if first is not None and starts is None:
        whole = decay if times is None else decay * times
        decay, times, q = _restarted(whole, first, q, log), None, _unasked(q, first) if strict else q
    given = [x for x in (q, k, v, decay, times, start) if x is not None]
    _one_device(given)
    wide = any(x.dtype == torch.float64 or x.is_complex() for x in given)
    begun = 1 if start is None or starts is not None else start.shape[0]
    shape = _joint_shape(*(x.shape[:3] for x in given if x is not start), (begun, 1, 1))
    (keys,) = _joint_shape(q.shape[-1:], k.shape[-1:], *(x.shape[-2:-1] for x in given[3:]))
    (values,) = _joint_shape(v.shape[-1:], *(x.shape[-1:] for x in given[3:]))
    if not _has_kernels(q) or wide or 0 in (*shape, keys, values) or keys > READ_KEYS:
        q = q if scale == 1.0 else q.to(torch.promote_types(q.dtype, torch.float32)) * scale
        run = partial(_read_by_pytorch, log=log, strict=strict, size=size)
        o, final = run(q, k, v, decay, times, start) if starts is None else _alone(
            starts, [q, k, v, decay, times], start, run, 1)  # fmt: skip
        return o if wide or dtype == torch.float32 else o.to(dtype), final
    q = q if scale == 1.0 else q.float() * scale
    q, k, v = q.expand(*shape, keys).contiguous(), k.expand(*shape, keys).contiguous(), v.expand(*shape, values).contiguous()
    if start is not None:
        number = shape[0] if starts is None else starts.shape[0] - 1
        start = start.float().expand(number, shape[2], keys, values).contiguous()
    packed, table = None, None
    if starts is not None:
        packed = _packed(starts, shape[1], READ_SEGMENT)
        q, k, v, table = packed.apart(q), packed.apart(k), packed.apart(v), packed.table
        decay, times = _read_apart(packed, decay, times, shape[1], log=log)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    o, final, _ = _read(q, k, v, decay, times, start, table, log, strict, keep, dtype)
    return o if packed is None else packed.together(o), final


def _read_apart(
    packed: _Packed, decay: Tensor, times: Tensor | None, time: int, *, log: bool
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The factors of a decay, such that it leaves a state as it is between the sequences. Where they are logarithms, one that
    is 0 there does that, and the other may stay the same for all positions."""
    varies = [x is not None and x.shape[1] == time for x in (decay, times)]
    first, second = varies if log and any(varies) else (True, times is not None)
    neutral = 0.0 if log else 1.0
    decay = packed.apart(decay.expand(-1, time, *decay.shape[2:]), neutral) if first else decay
    if second and times is not None:
        times = packed.apart(times.expand(-1, time, *times.shape[2:]), neutral)
    return decay, times


def _read_by_pytorch(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, times: Tensor | None, start: Tensor | None, *, log: bool, strict: bool,
    size: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same where there are no kernels."""
    if max(decay.shape[-2], 1 if times is None else times.shape[-2]) == 1:
        decay = decay if times is None else decay * times
        columns = decay.shape[-1] > 1
        found = chunk_linear_attention(q, k, v, decay.squeeze(-2), start, log=log, strict=strict, columns=columns)
    else:
        found = segmented_read(q, k, v, decay, start, log=log, strict=strict, size=size, times=times)
    return found
