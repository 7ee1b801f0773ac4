"""Feedback through a decaying state by Triton kernels, forward and adjoint, as operators that compilers see through."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...torch_module.support.chunk_solve import chunk_solve
from .attending import CHUNK, _attend_states, _sequences_of
from .fused_linear_attention import _attend_logarithm, _attend_operands
from .launching import OPS, _has_kernels, _joint_shape, _on_device, _one_device, _restarted, _rows_fit, _unasked
from .packed_rows import _alone, _packed
from .solving import _solve_inverse, _solve_scan


@torch.library.custom_op(
    f"{OPS}::solve",
    mutates_args=(),
    schema="(Tensor w, Tensor u, Tensor x, Tensor g, Tensor? start, Tensor? table, int apart, bool before,"
    " ScalarType dtype)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _solve(
    w: Tensor, u: Tensor, x: Tensor, g: Tensor, start: Tensor | None, table: Tensor | None, apart: int, before: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y in `dtype`, the chunks' inverses, with one decay for each key reads and writes, and what a chunk's decays leave."""
    y, inverse, reads, writes, decays = _solve_empty(w, u, x, g, start, table, apart, before, dtype)
    by_head = g.dim() == 3
    with _on_device(w):
        left, right = _solve_inverse(w, u, g, inverse, reads, writes, decays, apart, before)
        y, _, _ = _solve_scan(
            left, right, inverse, x, decays, start, dtype, by_head=by_head, apart=apart, before=before, table=table
        )
    return y, inverse, reads, writes, decays


@_solve.register_fake
def _solve_empty(
    w: Tensor, u: Tensor, x: Tensor, g: Tensor, start: Tensor | None, table: Tensor | None, apart: int, before: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, heads, keys = w.shape
    y, inverse = x.new_empty(x.shape, dtype=dtype), w.new_empty(batch, time, heads, CHUNK)
    by_head, chunks = g.dim() == 3, batch * ((time + CHUNK - 1) // CHUNK) * heads
    reads, writes = (w.new_empty((0,) if by_head else w.shape) for _ in range(2))
    return y, inverse, reads, writes, w.new_empty(chunks * (3 * CHUNK if by_head else keys), dtype=torch.float32)


@torch.library.custom_op(
    f"{OPS}::solve_adjoint",
    mutates_args=(),
    schema="(Tensor d_y, Tensor w, Tensor u, Tensor y, Tensor g, Tensor? start, Tensor? table, Tensor inverse, Tensor reads,"
    " Tensor writes, Tensor decays, int apart, bool before, bool gate) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _solve_adjoint(
    d_y: Tensor, w: Tensor, u: Tensor, y: Tensor, g: Tensor, start: Tensor | None, table: Tensor | None, inverse: Tensor,
    reads: Tensor, writes: Tensor, decays: Tensor, apart: int, before: bool, gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of w, u, x, g and of the first state. The chunks' states are computed again: none is kept."""
    by_head = g.dim() == 3
    left, right = (w, u) if by_head else (reads, writes)
    y = y.to(w.dtype)
    with _on_device(w):
        states, _ = _attend_states(right, y, decays, None, start, by_head=by_head, totals=not by_head, table=table)
        d_x, d_states, d_start = _solve_scan(
            left, right, inverse, d_y, decays, None, w.dtype, by_head=by_head, apart=apart, before=before, reverse=True,
            table=table,
        )  # fmt: skip
        asks = [(w, d_x, 1.0, apart, before)]
        (d_w,), d_u, d_g = _attend_operands(asks, u, y, g, decays, None, None, states, d_states, gate)
    return d_w, d_u, d_x, d_g, d_start


@_solve_adjoint.register_fake
def _solve_adjoint_empty(
    d_y: Tensor, w: Tensor, u: Tensor, y: Tensor, g: Tensor, start: Tensor | None, table: Tensor | None, inverse: Tensor,
    reads: Tensor, writes: Tensor, decays: Tensor, apart: int, before: bool, gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_start = w.new_empty(_sequences_of(w.shape[0], table), w.shape[2], w.shape[3], y.shape[-1], dtype=torch.float32)
    return torch.empty_like(w), torch.empty_like(u), w.new_empty(y.shape), torch.empty_like(g), d_start


def _solve_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    w, u, x, g, start, table, ctx.apart, ctx.before, _ = inputs
    ctx.x_dtype = x.dtype
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(w, u, output[0], g, start, table, *output[1:])


def _solve_backward(ctx: Any, d_y: Tensor, *_: Tensor) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    given = (d_y.contiguous(), *saved, ctx.apart, ctx.before, bool(ctx.needs_input_grad[3]))
    d_w, d_u, d_x, d_g, d_start = _solve_adjoint(*given)
    return d_w, d_u, d_x.to(ctx.x_dtype), d_g, None if saved[4] is None else d_start, None, None, None, None


_solve.register_autograd(_solve_backward, setup_context=_solve_setup)


def _solve_steps(x: Tensor, ranks: int, fill: float = 0.0) -> Tensor:
    """[B, T, H, R, D] -> [B, T R', H, D]: the ranks of a step one after another, filled up to R' of them."""
    x = pad(x, (0, 0, 0, ranks - x.shape[3]), value=fill)
    return x.transpose(2, 3).flatten(1, 2)


def fused_solve(
    w: Tensor,
    u: Tensor,
    x: Tensor,
    decay: Tensor | None = None,
    start: Tensor | None = None,
    *,
    log: bool = True,
    after: bool = False,
    chunk: int = CHUNK,
    dots: torch.dtype | None = None,
    dtype: torch.dtype = torch.float32,
    first: Tensor | None = None,
    starts: Tensor | None = None,
) -> Tensor:
    """y[t] = x[t] + w[t] S[t-1] (w[t] a[t] S[t-1] if `after`), S[t] = a[t] S[t-1] + u[t]^T y[t], for R ranks at once.

    Shapes:  w, u [B, T, H, R, K], x [B, T, H, R, V], decay [B, T, H, 1 or K] or None for 1, start [B, H, K, V] or None;
             every axis may be 1 -> y [B, T, H, R, V] in `dtype`
    Units:   a = exp(decay) if log, else a = decay; any sign, or 0 (log -inf)
    `dots` is the type that w, u and y are multiplied in: 16 bits or, by default, the widest of w's and u's own.
    Packed sequences begin at `first` [T], with a start each [N, H, K, V] if `starts` are their ends.
    float64, complex numbers, more than 64 ranks, chunks of another size and the CPU are left to PyTorch.
    """
    if first is not None and starts is None:
        decay, w = _restarted(decay, first, w[:, :, :, 0], log), w if after else _unasked(w, first)
    given = [g for g in (w, u, x, decay, start) if g is not None]
    _one_device(given)
    wide = any(g.dtype == torch.float64 or g.is_complex() for g in given)
    if decay is None:
        decay, log = torch.zeros((1, 1, 1, 1), device=x.device), True
    lead = [g.shape[:3] for g in (w, u, x, decay)]
    begun = 1 if start is None or starts is not None else start.shape[0]
    batch, time, heads = _joint_shape(*lead, (begun, 1, 1))
    (ranks,) = _joint_shape(w.shape[3:4], u.shape[3:4], x.shape[3:4])
    (keys,), values = _joint_shape(w.shape[-1:], u.shape[-1:], decay.shape[-1:]), x.shape[-1]
    if start is not None:
        heads, keys, values = max(heads, start.shape[1]), max(keys, start.shape[2]), max(values, start.shape[3])
    none = 0 in (batch, time, heads, ranks, keys, values)
    none = none or not _rows_fit(CHUNK, *(heads * n for n in (keys, values, CHUNK)))
    if not _has_kernels(x) or wide or none or ranks > CHUNK or chunk != CHUNK:
        run = partial(chunk_solve, log=log, after=after, chunk=chunk)
        y: Tensor = run(w, u, x, decay, start) if starts is None else _alone(
            starts, [w, u, x, decay], start, lambda *given: (run(*given),), 1)[0]  # fmt: skip
        return y if wide or dtype == torch.float32 else y.to(dtype)
    like = torch.promote_types(w.dtype, u.dtype) if dots is None else dots
    like = like if like in (torch.float16, torch.bfloat16) else torch.float32
    apart = 1 << (ranks - 1).bit_length()
    packed, shape = None if starts is None else _packed(starts, time, CHUNK // apart), (batch, time, heads, ranks)
    w, u, x = w.to(like).expand(*shape, keys), u.to(like).expand(*shape, keys), x.expand(*shape, values)
    if not log:  # the sign of the decays so far goes into the operands
        decay, signs = _attend_logarithm(decay, time)
        if packed is not None:
            signs = packed.restarted(signs.expand(batch, time, -1, -1))
        met = signs if after else pad(signs, (0, 0, 0, 0, 1, 0), value=1.0)[:, :time]
        met = met if after or packed is None else torch.where(packed.first(4), 1.0, met)
        w, u = w * met.to(like).unsqueeze(3), u * signs.to(like).unsqueeze(3)
    decay = decay.expand(batch, time, heads, -1)
    if packed is not None:
        w, u, x, decay = (packed.apart(g) for g in (w, u, x, decay))
    if ranks == 1:
        w, u, x = w.squeeze(3), u.squeeze(3), x.squeeze(3)
    else:
        w, u, x = (_solve_steps(g, apart) for g in (w, u, x))
        decay = _solve_steps(decay.unsqueeze(3), apart)
    g = decay.squeeze(-1) if decay.shape[-1] == 1 else decay
    if start is not None:
        number = batch if packed is None else packed.sequences
        start = start.float().expand(number, heads, keys, values).contiguous()
    w, u, x, g = w.contiguous(), u.contiguous(), x.contiguous(), g.contiguous()
    y = _solve(w, u, x, g, start, None if packed is None else packed.table, apart, not after, dtype)[0]
    y = torch.unflatten(y, 1, (y.shape[1] // apart, apart))[:, :, :ranks].transpose(2, 3)
    return y if packed is None else packed.together(y)
