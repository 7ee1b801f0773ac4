"""The gradient of decayed_factors, through the products themselves: exact at a = 0, and nothing cancels."""

import torch
from torch import Tensor

from .decayed_factors import _decayed_factors_rows, _decayed_factors_totals


def decayed_factors_adjoint(
    q: Tensor,
    k: Tensor,
    a: Tensor,
    d_weights: Tensor,
    d_reads: Tensor | None,
    d_writes: Tensor | None,
    d_total: Tensor | None,
    log_totals: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, a from those of the weights (read on and below the diagonal only), reads, writes and total.

    Shapes:  q, k, a [b, M, C/b, K], d_weights [M, C, C], d_reads, d_writes [M, C, K] (both are overwritten), d_total
             [M, K]; None is zero -> d_q, d_k, d_a as q
    """
    rows, chunks, blocks, width = q.shape
    size = rows * blocks
    d_reads = q.new_zeros(chunks, size, width) if d_reads is None else d_reads
    d_writes = q.new_zeros(chunks, size, width) if d_writes is None else d_writes
    d_total = q.new_zeros(chunks, width) if d_total is None else d_total
    d_q, d_k, d_a = torch.empty_like(q), torch.empty_like(q), torch.empty_like(q)
    group = max(1, 2**18 // max(size * width, 1))
    for begin in range(0, chunks, group):
        part = slice(begin, begin + group)
        given = q[:, part], k[:, part], a[:, part]
        found = d_q[:, part], d_k[:, part], d_a[:, part]
        d_block_totals = _decayed_factors_adjoint_levels(
            *given,
            d_weights[part],
            d_reads[part],
            d_writes[part],
            d_total[part],
            None if log_totals is None else log_totals[part],
        )
        _decayed_factors_adjoint_rows(*given, d_reads[part], d_writes[part], d_block_totals, *found)
        _decayed_factors_adjoint_diagonal(*given, d_weights[part], *found)
    return d_q, d_k, d_a


def _decayed_factors_adjoint_levels(
    q: Tensor,
    k: Tensor,
    a: Tensor,
    d_weights: Tensor,
    d_reads: Tensor,
    d_writes: Tensor,
    d_total: Tensor,
    log_totals: Tensor | None,
) -> Tensor:
    """Turn d_reads, d_writes into gradients relative to the blocks; returns d_block_totals [M, C/b, K]."""
    chunks, size, width = d_reads.shape
    reads, writes = torch.empty_like(d_reads), torch.empty_like(d_writes)
    totals = _decayed_factors_totals(_decayed_factors_rows(q, k, a, reads, writes), log_totals)
    levels = []
    for products in totals[:-1]:
        pairs = products.shape[1] // 2
        later = reads.view(chunks * pairs, 2, -1, width)[:, 1]
        earlier = writes.view(chunks * pairs, 2, -1, width)[:, 0]
        first, second = products.view(chunks * pairs, 2, 1, width).unbind(1)
        levels.append((pairs, later.clone(), earlier.clone(), first, second))
        if pairs > 1:
            later.mul_(first)
            earlier.mul_(second)
    d_totals = d_total.unsqueeze(1)
    for pairs, later, earlier, first, second in reversed(levels):
        span = size // (2 * pairs)
        squares = d_weights.view(chunks, pairs, 2, span, pairs, 2, span).diagonal(dim1=1, dim2=4)
        between = squares[:, 1, :, 0].permute(0, 3, 1, 2).reshape(chunks * pairs, span, span)
        d_later = d_reads.view(chunks * pairs, 2, span, width)[:, 1]
        d_earlier = d_writes.view(chunks * pairs, 2, span, width)[:, 0]
        d_joined = d_totals.reshape(chunks * pairs, 1, width)
        d_first = (d_later * later).sum(1, keepdim=True).addcmul_(d_joined, second)
        d_second = (d_earlier * earlier).sum(1, keepdim=True).addcmul_(d_joined, first)
        d_later.mul_(first).add_(torch.bmm(between, earlier))
        d_earlier.mul_(second).add_(torch.bmm(between.mT, later))
        d_totals = torch.cat([d_first, d_second], 1).view(chunks, 2 * pairs, width)
    return d_totals


def _decayed_factors_adjoint_rows(
    q: Tensor,
    k: Tensor,
    a: Tensor,
    d_reads: Tensor,
    d_writes: Tensor,
    d_totals: Tensor,
    d_q: Tensor,
    d_k: Tensor,
    d_a: Tensor,
) -> None:
    """Back through reads = q * prefix and writes = k * suffix inside a block, and through both running products."""
    rows, _, blocks, _ = q.shape
    d_read_rows = d_reads.unflatten(1, (blocks, rows)).unbind(2)
    d_write_rows = d_writes.unflatten(1, (blocks, rows)).unbind(2)
    prefixes = [a[0]]
    for i in range(1, rows):
        prefixes.append(prefixes[-1] * a[i])
    running = d_totals.clone()
    for i in range(rows - 1, -1, -1):
        torch.mul(d_read_rows[i], prefixes[i], out=d_q[i])
        running.addcmul_(d_read_rows[i], q[i])
        if i:
            torch.mul(running, prefixes[i - 1], out=d_a[i])
            running.mul_(a[i])
    d_a[0].copy_(running)
    suffixes = [torch.ones_like(running)]
    for j in range(rows - 2, -1, -1):
        suffixes.append(suffixes[-1] * a[j + 1])
    suffixes.reverse()
    running = torch.zeros_like(running)
    for j in range(rows):
        torch.mul(d_write_rows[j], suffixes[j], out=d_k[j])
        if j:
            d_a[j].addcmul_(running, suffixes[j])
            running.mul_(a[j])
        running.addcmul_(d_write_rows[j], k[j])


def _decayed_factors_adjoint_diagonal(
    q: Tensor, k: Tensor, a: Tensor, d_weights: Tensor, d_q: Tensor, d_k: Tensor, d_a: Tensor
) -> None:
    """Back through the blocks on the diagonal: the shifted keys once more, then their gradients, lag by lag."""
    rows, chunks, blocks, _ = q.shape
    squares = d_weights.view(chunks, blocks, rows, blocks, rows).diagonal(dim1=1, dim2=3)
    carried = [k]
    for lag in range(1, rows):
        carried.append(carried[-1][: rows - lag] * a[lag:])
    d_carried = torch.zeros_like(k)
    for lag in range(rows - 1, -1, -1):
        weight = squares.diagonal(-lag, dim1=1, dim2=2).permute(2, 0, 1).unsqueeze(-1)
        d_moved = d_carried[: rows - lag]
        d_moved.addcmul_(weight, q[lag:])
        d_q[lag:].addcmul_(weight, carried[lag])
        if lag:
            d_a[lag:].addcmul_(d_moved, carried[lag - 1][: rows - lag])
            d_moved.mul_(a[lag:])
    d_k.add_(d_carried)
