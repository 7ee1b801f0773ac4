"""Weighted sums inside a chunk, with one decay per value channel."""

from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .block_rows import block_rows
from .decayed_factors import decayed_factors
from .decayed_factors_adjoint import decayed_factors_adjoint
from .prefix_products import prefix_products
from .suffix_products import suffix_products


class _DecayApply(torch.autograd.Function):
    """One trilinear form, sum over i, j of A[i, j] (u_i . P[i, j] v_j), serves all: o is its gradient in u.

    With u = d_o its gradients in A, v and a are those of this function.
    """

    @staticmethod
    def forward(weights: Tensor, v: Tensor, a: Tensor, log_totals: Tensor | None) -> Tensor:
        v_rows, a_rows = block_rows(v), block_rows(a)
        none = torch.zeros_like(v_rows)
        o_rows, _, _ = decayed_factors_adjoint(none, v_rows, a_rows, weights, None, None, None, log_totals)
        return o_rows.permute(1, 2, 0, 3).reshape(v.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights, v, a, log_totals = ctx.saved_tensors
        if torch.is_grad_enabled():
            pull = torch.func.vjp(lambda w, v, a: _decay_apply_plain(w, v, a, log=False), weights, v, a)[1]
            return *pull(grads[0]), None
        d_o, v_rows, a_rows = (block_rows(x) for x in (grads[0], v, a))
        d_weights = decayed_factors(d_o, v_rows, a_rows, log_totals)[0]
        _, d_v, d_a = decayed_factors_adjoint(d_o, v_rows, a_rows, weights, None, None, None, log_totals)
        return d_weights, *(x.permute(1, 2, 0, 3).reshape(v.shape) for x in (d_v, d_a)), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor | None) -> tuple[Tensor, int]:
        """The mapped axis joins the chunks."""
        merged: list[Tensor | None] = []
        for x, dim in zip(inputs, in_dims, strict=True):
            if x is not None:
                x = x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
                x = x.flatten(0, 1)
            merged.append(x)
        o: Tensor = _DecayApply.apply(*merged)  # type: ignore[no-untyped-call]
        return torch.unflatten(o, 0, (info.batch_size, -1)), 0


def _decay_apply_plain(weights: Tensor, v: Tensor, decay: Tensor, *, log: bool) -> Tensor:
    """[M, C, C] and [M, C, V], C a power of two: the two halves on their own, and the first into the second."""
    chunks, size, width = v.shape
    if size == 1:
        return weights * v
    half = size // 2
    squares = torch.stack([weights[:, :half, :half], weights[:, half:, half:]], 1).view(2 * chunks, half, half)
    halves = _decay_apply_plain(squares, *(x.reshape(2 * chunks, half, width) for x in (v, decay)), log=log)
    first, second = halves.view(chunks, 2, half, width).unbind(1)
    carried = v[:, :half] * suffix_products(decay[:, :half], log=log)
    across = torch.bmm(weights[:, half:, :half], carried) * prefix_products(decay[:, half:], log=log)
    return torch.cat([first, second + across], 1)


def decay_apply(weights: Tensor, v: Tensor, decay: Tensor, *, log: bool = False) -> Tensor:
    """o_i = sum over j <= i of A[i, j] v_j prod of a_l over j < l <= i, a decay for every channel of v.

    Shapes:  weights [..., C, C] (read on and below the diagonal), v [..., C, V], decay broadcasts to v -> o [..., C, V]
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf); float32 for 16 bits
    """
    dtype = torch.promote_types(torch.promote_types(weights.dtype, v.dtype), decay.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    size, width = v.shape[-2:]
    lead = torch.broadcast_shapes(weights.shape[:-2], v.shape[:-2], decay.shape[:-2])
    if size == 0:
        return v.to(dtype).expand(*lead, size, width)
    weights = weights.to(dtype).expand(*lead, size, size)
    v, decay = v.to(dtype).expand(*lead, size, width), decay.to(dtype).expand(*lead, size, width)
    padded = max(8, 1 << (size - 1).bit_length())
    filling = (0, 0, 0, padded - size)
    weights = torch.nn.functional.pad(weights, (0, padded - size, 0, padded - size))
    v, decay = torch.nn.functional.pad(v, filling), torch.nn.functional.pad(decay, filling)
    weights, v, decay = (x.reshape(-1, padded, x.shape[-1]) for x in (weights, v, decay))
    if dtype.is_complex or torch.compiler.is_compiling():
        return _decay_apply_plain(weights, v, decay, log=log).view(*lead, padded, width)[..., :size, :]
    log_totals = decay.detach().reshape(-1, padded // 8, 8, width).sum(2) if log else None
    o: Tensor = _DecayApply.apply(  # type: ignore[no-untyped-call]
        weights, v, decay.exp() if log else decay, log_totals
    )
    return o.view(*lead, padded, width)[..., :size, :]
