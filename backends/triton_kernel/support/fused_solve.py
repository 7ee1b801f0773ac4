"""Feedback through a decaying state by Triton kernels, forward and adjoint, as operators that compilers see through."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn.functional import pad

from ...torch_module.support.chunk_solve import chunk_solve
from .attend_kernels import _rows_weights_kernel
from .attending import CHUNK, LEVELS, _attend_choices, _attend_states, _attend_tile
from .fused_linear_attention import _attend_logarithm, _attend_operands
from .launching import OPS, _block, _dot_precision, _has_kernels, _on_device, _one_device, _restarted, _unasked
from .solve_kernels import _head_pairs_kernel, _inverse_kernel, _solve_kernel
from .tuning import _tuned

# One tile holds all keys. With 256 of them the kernel gave wrong states and illegal accesses on a Hopper GPU under Triton
# 3.6, though the interpreter finds nothing wrong with it: what has more keys is left to PyTorch. Other
# kernels of this kind, several wgmma products in a loop with operands transposed in registers, were miscompiled there by
# ptxas before 13.1 (flash-linear-attention#1262, #984, triton#11366), which may be the cause here too.
SOLVE_KEYS = 128
SOLVE_PAIRS, SOLVE_WARPS, INVERSE_WARPS = 64, 4, 2


def _solve_tile(keys: int, values: int, like: torch.dtype, reverse: bool, hopper: bool) -> dict[str, int]:
    """All keys and some values; warps and stages so that 16-bit operands spill little and their tiles fit."""
    tile = {"BK": _block(keys, SOLVE_KEYS), "BV": 64 if hopper else 32, "num_warps": 8 if reverse else 4}
    tile["num_stages"] = 1 if reverse and not hopper else 2
    if like == torch.float32:
        tile |= {"BV": tile["BV"] // 2, "num_warps": 8, "num_stages": 1}
    return {**tile, "BV": _block(values, tile["BV"])}


def _solve_scan(
    w: Tensor, u: Tensor, inverse: Tensor, x: Tensor, decay: Tensor, start: Tensor | None, like: torch.dtype,
    *, by_head: bool, apart: int, before: bool, reverse: bool = False, read: tuple[Tensor, Tensor, float] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The unknowns, the state that enters every chunk, and the last; reversed, those of the adjoint.

    `read`: there, what the state was read by, the gradients of what was found, and the factor of both.
    """
    batch, time, heads, keys = w.shape
    values, count = x.shape[-1], triton.cdiv(time, CHUNK)
    y = x.new_empty(x.shape, dtype=like)
    states = w.new_empty(batch, count, heads, keys, values)
    final = w.new_empty(batch, heads, keys, values, dtype=torch.float32)
    hopper = w.is_cuda and not torch.version.hip and torch.cuda.get_device_capability(w.device)[0] == 9
    tile = _solve_tile(keys, values, w.dtype, reverse, hopper)
    wide = tile.pop("BK")  # all keys, whatever is faster
    tile = _tuned("solve reversed" if reverse else "solve", tile, w, time, keys, values)
    _solve_kernel[(batch * heads, triton.cdiv(values, tile["BV"]))](
        w, u, inverse, x, decay, *((w, x, 1.0) if read is None else read)[:2], final if start is None else start, states,
        final, y, 1.0 if read is None else read[2], time, heads, keys, values,
        BY_HEAD=by_head, APART=apart, BEFORE=before, REVERSE=reverse, READ=read is not None, HAS_START=start is not None,
        C=CHUNK, BK=wide, PRECISION=_dot_precision(), **tile,
    )  # fmt: skip
    return y, states, final


def _solve_inverse(
    w: Tensor, u: Tensor, g: Tensor, inverse: Tensor, reads: Tensor, writes: Tensor, totals: Tensor,
    apart: int, before: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Fill `inverse`, and with one decay for each key the rest; what the scan takes as w, u and decay."""
    batch, time, heads, keys = w.shape
    grid, order = (batch * heads, triton.cdiv(time, CHUNK)), {"APART": apart, "BEFORE": before}
    pairs = w.new_empty(batch, time, heads, CHUNK, dtype=torch.float32)
    if g.dim() == 3:
        _head_pairs_kernel[grid](
            w, u, g, pairs, time, heads, keys, C=CHUNK, BK=_block(keys, SOLVE_PAIRS), PRECISION=_dot_precision(),
            num_warps=SOLVE_WARPS, **order,
        )  # fmt: skip
    else:
        choices = _attend_choices(w.device, w.dtype, apart, before)
        _rows_weights_kernel[grid](
            w, u, g, choices, pairs, reads, writes, totals, 1.0, time, heads, keys,
            STRICT=False, WHOLE=True, ALONE=False, LEVELS=LEVELS, **order, **_attend_tile("weights", w, w),
        )  # fmt: skip
    # 16-bit numbers come in and go out: the products between need no more than tf32.
    precision = "tf32" if w.dtype != torch.float32 and _dot_precision() == "tf32x3" else _dot_precision()
    _inverse_kernel[grid](pairs, inverse, time, heads, C=CHUNK, PRECISION=precision, num_warps=INVERSE_WARPS)
    return (w, u, g) if g.dim() == 3 else (reads, writes, totals)


@torch.library.custom_op(
    f"{OPS}::solve",
    mutates_args=(),
    schema="(Tensor w, Tensor u, Tensor x, Tensor g, Tensor? start, int apart, bool before, ScalarType dtype)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _solve(
    w: Tensor, u: Tensor, x: Tensor, g: Tensor, start: Tensor | None, apart: int, before: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y in `dtype`, the chunks' inverses, and with one decay for each key: reads, writes, totals of the chunks."""
    y, inverse, reads, writes, totals = _solve_empty(w, u, x, g, start, apart, before, dtype)
    by_head = g.dim() == 3
    with _on_device(w):
        left, right, decay = _solve_inverse(w, u, g, inverse, reads, writes, totals, apart, before)
        y, _, _ = _solve_scan(left, right, inverse, x, decay, start, dtype, by_head=by_head, apart=apart, before=before)
    return y, inverse, reads, writes, totals


@_solve.register_fake
def _solve_empty(
    w: Tensor, u: Tensor, x: Tensor, g: Tensor, start: Tensor | None, apart: int, before: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, time, heads, keys = w.shape
    y, inverse = x.new_empty(x.shape, dtype=dtype), w.new_empty(batch, time, heads, CHUNK)
    if g.dim() == 3:
        return y, inverse, w.new_empty(0), w.new_empty(0), w.new_empty(0)
    totals = w.new_empty(batch, (time + CHUNK - 1) // CHUNK, heads, keys, dtype=torch.float32)
    return y, inverse, w.new_empty(w.shape), w.new_empty(w.shape), totals


@torch.library.custom_op(
    f"{OPS}::solve_adjoint",
    mutates_args=(),
    schema="(Tensor d_y, Tensor w, Tensor u, Tensor y, Tensor g, Tensor? start, Tensor inverse, Tensor reads,"
    " Tensor writes, Tensor totals, int apart, bool before, bool gate) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _solve_adjoint(
    d_y: Tensor, w: Tensor, u: Tensor, y: Tensor, g: Tensor, start: Tensor | None, inverse: Tensor, reads: Tensor,
    writes: Tensor, totals: Tensor, apart: int, before: bool, gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of w, u, x, g and of the first state. The chunks' states are computed again: none is kept."""
    by_head = g.dim() == 3
    left, right, decay = (w, u, g) if by_head else (reads, writes, totals)
    y = y.to(w.dtype)
    with _on_device(w):
        states, _ = _attend_states(right, y, decay, None, start, totals=not by_head)
        d_x, d_states, d_start = _solve_scan(
            left, right, inverse, d_y, decay, None, w.dtype, by_head=by_head, apart=apart, before=before, reverse=True
        )
        d_w, d_u, d_g = _attend_operands(
            w, u, y, g, None, d_x, states, d_states, 1.0, gate, apart=apart, before=before
        )
    return d_w, d_u, d_x, d_g, d_start


@_solve_adjoint.register_fake
def _solve_adjoint_empty(
    d_y: Tensor, w: Tensor, u: Tensor, y: Tensor, g: Tensor, start: Tensor | None, inverse: Tensor, reads: Tensor,
    writes: Tensor, totals: Tensor, apart: int, before: bool, gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_start = w.new_empty(w.shape[0], w.shape[2], w.shape[3], y.shape[-1], dtype=torch.float32)
    return torch.empty_like(w), torch.empty_like(u), w.new_empty(y.shape), torch.empty_like(g), d_start


def _solve_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    w, u, x, g, start, ctx.apart, ctx.before, _ = inputs
    ctx.x_dtype = x.dtype
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(w, u, output[0], g, start, *output[1:])


def _solve_backward(ctx: Any, d_y: Tensor, *_: Tensor) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    given = (d_y.contiguous(), *saved, ctx.apart, ctx.before, bool(ctx.needs_input_grad[3]))
    d_w, d_u, d_x, d_g, d_start = _solve_adjoint(*given)
    return d_w, d_u, d_x.to(ctx.x_dtype), d_g, None if saved[4] is None else d_start, None, None, None


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
) -> Tensor:
    """y[t] = x[t] + w[t] S[t-1] (w[t] a[t] S[t-1] if `after`), S[t] = a[t] S[t-1] + u[t]^T y[t], for R ranks at once.

    Shapes:  w, u [B, T, H, R, K], x [B, T, H, R, V], decay [B, T, H, 1 or K] or None for 1, start [B, H, K, V] or None;
             every axis may be 1 -> y [B, T, H, R, V] in `dtype`
    Units:   a = exp(decay) if log, else a = decay; any sign, or 0 (log -inf)
    `dots` is the type that w, u and y are multiplied in: 16 bits or, by default, the widest of w's and u's own.
    float64, complex numbers, more than 64 ranks or 128 keys, chunks of another size and the CPU are left to PyTorch.
    """
    if first is not None:
        decay, w = _restarted(decay, first, w[:, :, :, 0], log), w if after else _unasked(w, first)
    given = [g for g in (w, u, x, decay, start) if g is not None]
    _one_device(given)
    wide = any(g.dtype == torch.float64 or g.is_complex() for g in given)
    if decay is None:
        decay, log = torch.zeros((1, 1, 1, 1), device=x.device), True
    lead = [g.shape[:3] for g in (w, u, x, decay)]
    batch, time, heads = torch.broadcast_shapes(*lead, (1 if start is None else start.shape[0], 1, 1))
    (ranks,) = torch.broadcast_shapes(w.shape[3:4], u.shape[3:4], x.shape[3:4])
    keys, values = max(w.shape[-1], u.shape[-1], decay.shape[-1]), x.shape[-1]
    if start is not None:
        heads, keys, values = max(heads, start.shape[1]), max(keys, start.shape[2]), max(values, start.shape[3])
    none = 0 in (batch, time, heads, ranks, keys, values)
    if not _has_kernels(x) or wide or none or ranks > CHUNK or keys > SOLVE_KEYS or chunk != CHUNK:
        y: Tensor = chunk_solve(w, u, x, decay, start, log=log, after=after, chunk=chunk)
        return y if wide or dtype == torch.float32 else y.to(dtype)
    like = torch.promote_types(w.dtype, u.dtype) if dots is None else dots
    like = like if like in (torch.float16, torch.bfloat16) else torch.float32
    shape = (batch, time, heads, ranks)
    w, u, x = w.to(like).expand(*shape, keys), u.to(like).expand(*shape, keys), x.expand(*shape, values)
    if not log:  # the sign of the decays so far goes into the operands
        decay, signs = _attend_logarithm(decay, time)
        met = signs if after else pad(signs, (0, 0, 0, 0, 1, 0), value=1.0)[:, :time]
        w, u = w * met.to(like).unsqueeze(3), u * signs.to(like).unsqueeze(3)
    decay = decay.expand(batch, time, heads, -1)
    apart = 1 << (ranks - 1).bit_length()
    if ranks == 1:
        w, u, x = w.squeeze(3), u.squeeze(3), x.squeeze(3)
    else:
        w, u, x = (_solve_steps(g, apart) for g in (w, u, x))
        decay = _solve_steps(decay.unsqueeze(3), apart)
    g = decay.squeeze(-1) if decay.shape[-1] == 1 else decay
    if start is not None:
        start = start.float().expand(batch, heads, keys, values).contiguous()
    w, u, x, g = w.contiguous(), u.contiguous(), x.contiguous(), g.contiguous()
    y = _solve(w, u, x, g, start, apart, not after, dtype)[0]
    return torch.unflatten(y, 1, (time, apart))[:, :, :ranks].transpose(2, 3)
