"""The gradient of pair_factors, through the products of decays: exact at a = 0, and nothing cancels."""

import torch
from torch import Tensor

from .block_rows import block_rows
from .decayed_factors_adjoint import decayed_factors_adjoint
from .pair_factors import _pair_factors_pairs
from .shared_factors_adjoint import shared_factors_adjoint


def pair_factors_adjoint(
    w: Tensor,
    u: Tensor,
    decay: Tensor,
    kept: tuple[Tensor, ...],
    d_pairs: Tensor,
    d_reads: Tensor,
    d_writes: Tensor,
    d_total: Tensor,
    *,
    log: bool,
    after: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of w, u [M, R, C, K] and of the decay as it was given [M, C, 1 or K]; shapes as in pair_factors."""
    chunks, ranks, size, width = w.shape
    first = d_reads[:, :, :1]
    if not after:
        w = torch.cat([w[:, :, 1:], torch.zeros_like(w[:, :, :1])], 2)
        d_pairs = torch.cat([d_pairs[..., 1:, :].tril(), torch.zeros_like(d_pairs[..., :1, :])], -2)
        d_reads = torch.cat([d_reads[:, :, 1:], torch.zeros_like(first)], 2)
    else:
        d_pairs = d_pairs.tril(-1)
    q, k, a = _pair_factors_pairs(w, u, decay)
    # Reads, writes and total were taken from the first pair that has them.
    each = (chunks, ranks, ranks, size, width)
    d_q, d_k = w.new_zeros(each), w.new_zeros(each)
    d_q[:, :, 0], d_k[:, 0] = d_reads, d_writes
    d_last = w.new_zeros(chunks, ranks * ranks, width)
    d_last[:, 0] = d_total
    given = d_pairs.reshape(-1, size, size), d_q.flatten(0, 2), d_k.flatten(0, 2), d_last.flatten(0, 1)
    if decay.shape[-1] == 1:
        found = shared_factors_adjoint(q, k, kept, *given)
        d_a = found[2].unsqueeze(-1) * (a.exp() if log else 1)
        d_q, d_k = found[0].view(each), found[1].view(each)
    else:
        rows = [block_rows(x) for x in (q, k, a.exp() if log else a)]
        three = decayed_factors_adjoint(rows[0], rows[1], rows[2], *given, *kept)
        d_q, d_k, d_a = (x.permute(1, 2, 0, 3).reshape(each) for x in three)
        d_a = d_a.reshape(a.shape) * a.exp() if log else d_a
    d_w, d_u = d_q.sum(2), d_k.sum(1)
    d_decay = d_a.reshape(chunks, ranks * ranks, size, -1).sum(1)
    if not after:
        d_w = torch.cat([first, d_w[:, :, :-1]], 2)
    return d_w, d_u, d_decay
