"""All states of an elementwise affine recurrence by Triton kernels, as an operator that compilers see through."""

from typing import Any

import torch
from torch import Tensor

from ...torch_module.support.affine_scan import affine_scan
from .launching import OPS, _cdiv, _has_kernels, _on_device, _one_device, _piece_length, _restarted
from .scan_kernels import _scan_adjoint_kernel, _scan_ends_kernel, _scan_states_kernel

SCAN_LANES, SCAN_WARPS = 64, 1  # channels of a program, side by side
SCAN_STEPS, SCAN_ADJOINT_STEPS = 16, 8  # steps whose rows are on their way at once; registers bound them


def _scan_lanes(decay: Tensor, b: Tensor) -> tuple[Tensor, int, tuple[int, int, int, int]]:
    """The decay broadcast to b without a copy: (tensor, length of the inner lanes, strides over batch, time, outer, inner).

    Its lanes must be an outer and an inner group, each with one stride; any others are copied.
    """
    wide = decay.expand(b.shape)
    for x in (wide, wide.contiguous()):
        groups: list[list[int]] = []
        for size, stride in zip(x.shape[2:], x.stride()[2:], strict=True):
            if size == 1:
                continue
            if groups and groups[-1][1] == stride * size:
                groups[-1] = [groups[-1][0] * size, stride]
            else:
                groups.append([size, stride])
        if len(groups) <= 2:
            break
    outer, inner = [[1, 0], [1, 0], *groups][-2:]
    return x, inner[0], (x.stride(0), x.stride(1), outer[1], inner[1])


def _scan_pieces(batch: int, time: int, lanes: int) -> tuple[int, int]:
    """(number, length) of the pieces of time: enough programs to fill a device, and one piece if channels alone do."""
    length = _piece_length(time, batch * _cdiv(lanes, SCAN_LANES), 1024, 8 * SCAN_STEPS, SCAN_STEPS)
    return _cdiv(time, length), length


def _scan_launch(
    decay: Tensor, x: Tensor, start: Tensor | None, outputs: tuple[Tensor, ...], log: bool, reverse: bool, adjoint: bool
) -> None:
    """The pieces' maps if there is more than one, then all states (or, with `adjoint`, both gradients)."""
    batch, time = x.shape[:2]
    lanes = x[0, 0].numel()
    decay, inner, strides = _scan_lanes(decay, x)
    count, length = _scan_pieces(batch, time, lanes)
    ends = x.new_empty(3, batch, count, lanes, dtype=torch.float32).unbind(0)
    grid = (batch * _cdiv(lanes, SCAN_LANES), count)
    sizes = (time, lanes, inner, length, *strides)
    tile = {"STEPS": SCAN_ADJOINT_STEPS if adjoint else SCAN_STEPS, "BD": SCAN_LANES, "num_warps": SCAN_WARPS}
    flags = {"LOG": log, "REVERSE": reverse}
    with _on_device(x):
        if count > 1:
            _scan_ends_kernel[grid](decay, x, *ends, *sizes, **flags, SHIFT=int(adjoint), **tile)
        kernel = _scan_adjoint_kernel if adjoint else _scan_states_kernel
        kernel[grid](decay, x, x if start is None else start, *outputs, *ends, *sizes, **flags,
                     HAS_START=start is not None, **tile)  # fmt: skip


@torch.library.custom_op(
    f"{OPS}::scan", mutates_args=(), schema="(Tensor decay, Tensor b, Tensor? start, bool log, bool reverse) -> Tensor"
)
def _scan(decay: Tensor, b: Tensor, start: Tensor | None, log: bool, reverse: bool) -> Tensor:
    """h, float32, of b's shape."""
    h = torch.empty(b.shape, dtype=torch.float32, device=b.device)
    start = None if start is None else start.contiguous()
    _scan_launch(decay, b.contiguous(), start, (h,), log, reverse, False)
    return h


@_scan.register_fake
def _scan_empty(decay: Tensor, b: Tensor, start: Tensor | None, log: bool, reverse: bool) -> Tensor:
    return torch.empty(b.shape, dtype=torch.float32, device=b.device)


@torch.library.custom_op(
    f"{OPS}::scan_adjoint",
    mutates_args=(),
    schema="(Tensor grad, Tensor decay, Tensor? start, Tensor h, bool log, bool reverse) -> (Tensor, Tensor)",
)
def _scan_adjoint(
    grad: Tensor, decay: Tensor, start: Tensor | None, h: Tensor, log: bool, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the decays (before what broadcasting repeats is summed) and of b."""
    d_a, d_b = torch.empty_like(h), torch.empty_like(h)
    start = None if start is None else start.contiguous()
    _scan_launch(decay, grad.contiguous(), start, (h, d_a, d_b), log, not reverse, True)
    return d_a, d_b


@_scan_adjoint.register_fake
def _scan_adjoint_empty(
    grad: Tensor, decay: Tensor, start: Tensor | None, h: Tensor, log: bool, reverse: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(h), torch.empty_like(h)


def _scan_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    decay, _, start, ctx.log, ctx.reverse = inputs
    ctx.b_dtype = inputs[1].dtype
    ctx.save_for_backward(decay, start, output)


def _scan_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    decay, start, h = ctx.saved_tensors
    d_decay, d_b = _scan_adjoint(grad, decay, start, h, ctx.log, ctx.reverse)
    d_start = None
    if start is not None:
        first = decay[:, -1 if ctx.reverse else 0].float()
        d_start = ((first.exp() if ctx.log else first) * d_b[:, -1 if ctx.reverse else 0]).to(start.dtype)
    return d_decay.sum_to_size(decay.shape).to(decay.dtype), d_b.to(ctx.b_dtype), d_start, None, None


_scan.register_autograd(_scan_backward, setup_context=_scan_setup)


def _scan_begun(decay: Tensor, b: Tensor, start: Tensor, log: bool, heads: Tensor, ends: Tensor) -> Tensor:
    """b with what each packed sequence's first step, at its head, makes of its start [N or 1, ..]."""
    shape, lanes = torch.broadcast_shapes(decay.shape, b.shape), b.dim() - 2
    if not shape[1]:
        return b
    heads = heads.long().clamp(0, shape[1] - 1)
    there = (ends[1:] > ends[:-1]).view(-1, *[1] * lanes)
    factor = decay.expand(shape)[0].index_select(0, heads)
    factor = factor.exp() if log else factor
    added = torch.where(there, factor, 0) * start
    dtype = torch.promote_types(added.dtype, torch.float32)
    return b.expand(shape).to(dtype).index_add(1, heads, added.to(dtype)[None])


def fused_scan(
    decay: Tensor, b: Tensor, start: Tensor | None = None, *, log: bool = False, reverse: bool = False,
    first: Tensor | None = None, starts: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """h[t] = a[t] h[t-1] + b[t] along dim 1, with h[-1] = start; reversed, h[t] = a[t] h[t+1] + b[t] and h[T] = start.

    Shapes:  decay broadcasts to b [B, T, ...], start [B, ...] or None for zeros -> h [B, T, ...], float32 for 16 bits
    Units:   a = exp(decay) if log, else a = decay; any sign, or 0 (log -inf)
    float64, complex numbers and the CPU are left to PyTorch. Packed sequences begin at `first` [T], with a start each if
    `starts` are their ends.
    """
    if first is not None:
        if start is not None and starts is not None:
            b, start = _scan_begun(decay, b, start, log, starts[1:] - 1 if reverse else starts[:-1], starts), None
        decay = decay.reshape((1,) * (b.dim() - decay.dim()) + decay.shape)
        edge = torch.cat([first[1:], first[:1]]) if reverse else first  # a scan backwards begins where one ends
        decay = _restarted(decay, edge, b, log)
    wide = {torch.float64, torch.complex64, torch.complex128}
    given = [x for x in (b, decay, start) if x is not None]
    _one_device(given)
    shape = torch.broadcast_shapes(decay.shape, b.shape)
    if not _has_kernels(b) or wide & {x.dtype for x in given} or 0 in shape:
        return affine_scan(decay, b, start, log=log, reverse=reverse)
    decay, b = decay.reshape((1,) * (b.dim() - decay.dim()) + decay.shape), b.expand(shape)
    start = None if start is None else start.expand(shape[0], *shape[2:])
    h: Tensor = _scan(decay, b, start, log, reverse)
    return h
