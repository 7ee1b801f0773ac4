"""What a chunk needs to know of per-channel decays: products only, in blocks of rows that are joined two by two."""

import torch
from torch import Tensor


def decayed_factors(
    q: Tensor, k: Tensor, a: Tensor, log_totals: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights A[i, j] = sum of q_i k_j prod a_l over j < l <= i; reads q_i prod, l <= i; writes k_j prod, l > j.

    Every factor is a product of decays between two positions. Nothing is divided, subtracted or exponentiated, so any
    decay is safe: 0, very small, negative, above 1. This function is not differentiable: see decayed_factors_adjoint.
    Where logs are known their sums over blocks give the products of blocks: many rounded decays near 1 would drift.

    Shapes:  q, k, a [b, M, C/b, K], the row within a block of b rows first; C/b a power of two; log_totals [M, C/b, K]
             -> weights [M, C, C] (0 above the diagonal), reads, writes [M, C, K], total [M, K] = prod of all a
    """
    rows, chunks, blocks, width = q.shape
    size = rows * blocks
    weights = q.new_zeros(chunks, size, size)
    reads, writes = q.new_empty(chunks, size, width), q.new_empty(chunks, size, width)
    total = q.new_empty(chunks, width)
    group = max(1, 2**18 // max(size * width, 1))  # what is worked on at once stays in cache
    for begin in range(0, chunks, group):
        part = slice(begin, begin + group)
        q_part, k_part, a_part = q[:, part], k[:, part], a[:, part]
        block_totals = _decayed_factors_rows(q_part, k_part, a_part, reads[part], writes[part])
        _decayed_factors_diagonal(q_part, k_part, a_part, weights[part])
        totals = _decayed_factors_totals(block_totals, None if log_totals is None else log_totals[part])
        _decayed_factors_levels(reads[part], writes[part], totals, weights[part])
        total[part] = totals[-1][:, 0]
    return weights, reads, writes, total


def _decayed_factors_rows(q: Tensor, k: Tensor, a: Tensor, reads: Tensor, writes: Tensor) -> Tensor:
    """Decay reads from their block's start and writes to its end; returns the blocks' totals [M, C/b, K]."""
    rows, _, blocks, _ = q.shape
    read_rows = reads.unflatten(1, (blocks, rows)).unbind(2)
    write_rows = writes.unflatten(1, (blocks, rows)).unbind(2)
    prefix = a[0].clone()
    torch.mul(q[0], prefix, out=read_rows[0])
    for i in range(1, rows):
        torch.mul(q[i], prefix.mul_(a[i]), out=read_rows[i])
    write_rows[-1].copy_(k[-1])
    suffix = torch.ones_like(prefix)
    for j in range(rows - 2, -1, -1):
        torch.mul(k[j], suffix.mul_(a[j + 1]), out=write_rows[j])
    return prefix


def _decayed_factors_diagonal(q: Tensor, k: Tensor, a: Tensor, weights: Tensor) -> None:
    """The blocks on the diagonal: keys move on one row at a time, decayed by the row they enter."""
    rows, chunks, blocks, _ = q.shape
    squares = weights.view(chunks, blocks, rows, blocks, rows).diagonal(dim1=1, dim2=3)
    carried, products = k.clone(), torch.empty_like(k)
    for lag in range(rows):
        moved = carried[: rows - lag]
        if lag:
            moved.mul_(a[lag:])
        inner = torch.mul(q[lag:], moved, out=products[: rows - lag]).sum(-1)
        squares.diagonal(-lag, dim1=1, dim2=2).copy_(inner.permute(1, 2, 0))


def _decayed_factors_totals(block_totals: Tensor, log_totals: Tensor | None) -> list[Tensor]:
    """Products over one block, two, four, .., the chunk: [M, C/b, K], [M, C/2b, K], .., [M, 1, K]."""
    if log_totals is None:
        totals = [block_totals]
        while totals[-1].shape[1] > 1:
            totals.append(totals[-1][:, ::2] * totals[-1][:, 1::2])
        return totals
    logs = [log_totals]
    while logs[-1].shape[1] > 1:
        logs.append(logs[-1][:, ::2] + logs[-1][:, 1::2])
    return [x.exp() for x in logs]


def _decayed_factors_levels(reads: Tensor, writes: Tensor, totals: list[Tensor], weights: Tensor) -> None:
    """Join neighbouring blocks until one is left; reads and writes end up relative to the chunk's ends."""
    chunks, size, width = reads.shape
    for products in totals[:-1]:
        pairs = products.shape[1] // 2
        span = size // (2 * pairs)
        later = reads.view(chunks * pairs, 2, span, width)[:, 1]
        earlier = writes.view(chunks * pairs, 2, span, width)[:, 0]
        squares = weights.view(chunks, pairs, 2, span, pairs, 2, span).diagonal(dim1=1, dim2=4)
        between = torch.bmm(later, earlier.mT).view(chunks, pairs, span, span)
        squares[:, 1, :, 0].copy_(between.permute(0, 2, 3, 1))
        first, second = products.view(chunks * pairs, 2, 1, width).unbind(1)
        later.mul_(first)
        earlier.mul_(second)
