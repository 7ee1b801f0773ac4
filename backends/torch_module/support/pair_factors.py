"""Decayed products between the reads and the writes of a chunk, for every pair of ranks."""

import torch
from torch import Tensor

from .block_rows import block_rows
from .decayed_factors import decayed_factors
from .shared_factors import shared_factors


def pair_factors(w: Tensor, u: Tensor, decay: Tensor, *, log: bool, after: bool) -> tuple[Tensor, ...]:
    """Pairs G[r, s, i, j] = (w_ri . u_sj) prod a_l over j < l <= i (l < i unless `after`), 0 unless j < i.

    Reads w_i times the decays up to i (before i unless `after`), writes u_j times those after j, and their total. A read
    before the decay is a read after the step before it; the first one sees what entered the chunk.

    Shapes:  w, u [M, R, C, K], decay [M, C, 1 or K], C a power of two, at least 8 -> pairs [M, R, R, C, C],
             reads, writes [M, R, C, K], total [M, 1 or K], and what pair_factors_adjoint wants kept
    """
    chunks, ranks, size, width = w.shape
    moved = w if after else torch.cat([w[:, :, 1:], torch.zeros_like(w[:, :, :1])], 2)
    q, k, a = _pair_factors_pairs(moved, u, decay)
    if decay.shape[-1] == 1:
        weights, reads, writes, total, kept = shared_factors(q.clone(), k.clone(), a.squeeze(-1), log=log, keep=True)
    else:
        rows = [block_rows(x) for x in (q, k, a)]
        kept = (rows[2].sum(0),) if log else ()
        rows[2] = rows[2].exp() if log else rows[2]
        weights, reads, writes, total = decayed_factors(*rows, *kept)
    pairs = weights.view(chunks, ranks, ranks, size, size)
    reads = reads.view(chunks, ranks, ranks, size, width)[:, :, 0]
    writes = writes.view(chunks, ranks, ranks, size, width)[:, 0]
    total = total.view(chunks, ranks * ranks, -1)[:, 0]
    if after:
        return pairs.tril(-1), reads, writes, total, *kept
    pairs = torch.cat([torch.zeros_like(pairs[..., :1, :]), pairs[..., :-1, :]], -2).tril(-1)
    return pairs, torch.cat([w[:, :, :1], reads[:, :, :-1]], 2), writes, total, *kept


def _pair_factors_pairs(w: Tensor, u: Tensor, decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[M R R, C, K]: each read with each write."""
    chunks, ranks, size, width = w.shape
    shape = chunks, ranks, ranks, size
    q = w.unsqueeze(2).expand(*shape, width).reshape(-1, size, width)
    k = u.unsqueeze(1).expand(*shape, width).reshape(-1, size, width)
    a = decay[:, None, None].expand(*shape, decay.shape[-1]).reshape(-1, size, decay.shape[-1])
    return q, k, a
