"""A factor for each row of a tensor by Triton kernels, as operators that compilers see through."""

from typing import Any

import torch
from torch import Tensor

from .launching import OPS, _block, _cdiv, _has_kernels, _on_device, _one_device
from .row_kernels import _rows_scale_adjoint_kernel, _rows_scale_kernel

ROWS_TILE = {"BR": 16, "num_warps": 4}


@torch.library.custom_op(f"{OPS}::rows_scale", mutates_args=(), schema="(Tensor x, Tensor by) -> Tensor")
def _rows_scale(x: Tensor, by: Tensor) -> Tensor:
    """x by, of x's type."""
    out = torch.empty_like(x)
    with _on_device(x):
        grid = (_cdiv(by.numel(), ROWS_TILE["BR"]),)
        _rows_scale_kernel[grid](x, by, out, by.numel(), x.shape[-1], BD=_block(x.shape[-1], 128), **ROWS_TILE)
    return out


@_rows_scale.register_fake
def _rows_scale_empty(x: Tensor, by: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op(
    f"{OPS}::rows_scale_adjoint", mutates_args=(), schema="(Tensor grad, Tensor x, Tensor by) -> (Tensor, Tensor)"
)
def _rows_scale_adjoint(grad: Tensor, x: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    d_x, d_by = torch.empty_like(x), torch.empty_like(by)
    with _on_device(x):
        grid = (_cdiv(by.numel(), ROWS_TILE["BR"]),)
        sizes = (by.numel(), x.shape[-1])
        _rows_scale_adjoint_kernel[grid](grad, x, by, d_x, d_by, *sizes, BD=_block(x.shape[-1], 128), **ROWS_TILE)
    return d_x, d_by


@_rows_scale_adjoint.register_fake
def _rows_scale_adjoint_empty(grad: Tensor, x: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(by)


def _rows_keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _rows_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = _rows_scale_adjoint(grad.contiguous(), *ctx.saved_tensors)
    return found


_rows_scale.register_autograd(_rows_backward, setup_context=_rows_keep)


def fused_rows(x: Tensor, by: Tensor) -> Tensor:
    """x times a factor that is the same along its last axis, [.., 1], rounded to x's type once.

    float64, complex numbers, factors of another shape and the CPU are left to PyTorch.
    """
    _one_device([x, by])
    wide = {x.dtype, by.dtype} & {torch.float64, torch.complex64, torch.complex128}
    rows = x.dim() == by.dim() and by.shape[-1] == 1 and x.numel() and by.numel() * x.shape[-1] <= x.numel()
    if not _has_kernels(x) or wide or not rows:
        return x * by.to(x.dtype)
    found: Tensor = _rows_scale(x.contiguous(), by.float().expand(*x.shape[:-1], 1).contiguous())
    return found
