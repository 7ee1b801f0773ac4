"""Decayed inner products inside a chunk, with one decay per key channel."""

from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .block_rows import block_rows
from .decayed_factors import decayed_factors
from .decayed_factors_adjoint import decayed_factors_adjoint
from .prefix_products import prefix_products
from .segment_products import segment_products
from .suffix_products import suffix_products


class _DecayGram(torch.autograd.Function):
    """Blocks of a chunk, halved, on [M, C, K]: every factor is a product of decays, in both directions."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, a: Tensor, log_totals: Tensor | None) -> Tensor:
        return decayed_factors(block_rows(q), block_rows(k), block_rows(a), log_totals)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, a, log_totals = ctx.saved_tensors
        if torch.is_grad_enabled():
            pull = torch.func.vjp(lambda q, k, a: _decay_gram_plain(q, k, a, log=False), q, k, a)[1]
            return *pull(grads[0]), None
        rows = block_rows(q), block_rows(k), block_rows(a)
        d_rows = decayed_factors_adjoint(*rows, grads[0], None, None, None, log_totals)
        return *(x.permute(1, 2, 0, 3).reshape(q.shape) for x in d_rows), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor | None) -> tuple[Tensor, int]:
        """The mapped axis joins the chunks."""
        merged: list[Tensor | None] = []
        for x, dim in zip(inputs, in_dims, strict=True):
            if x is not None:
                x = x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
                x = x.flatten(0, 1)
            merged.append(x)
        weights: Tensor = _DecayGram.apply(*merged)  # type: ignore[no-untyped-call]
        return torch.unflatten(weights, 0, (info.batch_size, -1)), 0


def _decay_gram_plain(q: Tensor, k: Tensor, decay: Tensor, *, log: bool) -> Tensor:
    """[M, C, K], C a power of two: the two halves on their own, and the product between them. Differentiable."""
    chunks, size, width = q.shape
    if size == 1:
        return (q * k).sum(-1, keepdim=True)
    half = size // 2
    halves = _decay_gram_plain(*(x.reshape(2 * chunks, half, width) for x in (q, k, decay)), log=log)
    first, second = halves.view(chunks, 2, half, half).unbind(1)
    reads = q[:, half:] * prefix_products(decay[:, half:], log=log)
    writes = k[:, :half] * suffix_products(decay[:, :half], log=log)
    lower = torch.bmm(reads, writes.mT)
    return torch.cat([torch.cat([first, torch.zeros_like(lower)], -1), torch.cat([lower, second], -1)], -2)


def _decay_gram_padded(x: Tensor, size: int) -> Tensor:
    """Zeros after the last row."""
    return torch.cat([x, x.new_zeros(*x.shape[:-2], size - x.shape[-2], x.shape[-1])], -2)


def decay_gram(q: Tensor, k: Tensor, decay: Tensor, *, log: bool = False, strict: bool = False) -> Tensor:
    """A[i, j] = sum over K of q_i k_j prod of a_l over j < l <= i, for j <= i; 0 above the diagonal.

    Strict: the read comes before its own step, so the product is over j < l < i, and A[i, j] = 0 unless j < i.

    Shapes:  q, k [..., C, K], decay broadcasts to them (K = 1: one decay for all channels) -> [..., C, C]
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf); float32 for 16 bits
    """
    dtype = torch.promote_types(torch.promote_types(torch.promote_types(q.dtype, k.dtype), decay.dtype), torch.float32)
    q, k, decay = q.to(dtype), k.to(dtype), decay.to(dtype)
    size = q.shape[-2]
    if strict and size > 0:
        decay = decay.expand(*decay.shape[:-2], size, decay.shape[-1])
        weights = decay_gram(q[..., 1:, :], k[..., :-1, :], decay[..., :-1, :], log=log)
        return torch.nn.functional.pad(weights, (0, 1, 1, 0))
    if size == 0 or decay.shape[-1] == 1:
        decay = decay.expand(*decay.shape[:-2], size, decay.shape[-1])[..., 0]
        return (q @ k.mT) * segment_products(decay, log=log)
    q, k, decay = torch.broadcast_tensors(q, k, decay)
    padded = max(8, 1 << (size - 1).bit_length())
    q, k, decay = (_decay_gram_padded(x, padded) for x in (q, k, decay))
    shape = *q.shape[:-1], padded
    q, k, decay = (x.reshape(-1, padded, x.shape[-1]) for x in (q, k, decay))
    if dtype.is_complex or torch.compiler.is_compiling():
        return _decay_gram_plain(q, k, decay, log=log).view(shape)[..., :size, :size]
    log_totals = decay.detach().reshape(-1, padded // 8, 8, q.shape[-1]).sum(2) if log else None
    found: Tensor = _DecayGram.apply(  # type: ignore[no-untyped-call]
        q, k, decay.exp() if log else decay, log_totals
    )
    return found.view(shape)[..., :size, :size]
