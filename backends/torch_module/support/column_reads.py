"""Reads of a chunk whose decays go with the columns of the state: products only, in blocks of rows joined two by two."""

import torch
from torch import Tensor

from .decayed_factors import _decayed_factors_totals


def column_writes(v: Tensor, a: Tensor, log_totals: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """v_j prod a_l over l > j, and the product of all a: what a chunk leaves of its values.

    Shapes:  v, a [b, M, C/b, V], the row within a block of b rows first; C/b a power of two; log_totals [M, C/b, V]
             -> writes [M, C, V], total [M, V]
    """
    rows, chunks, blocks, width = v.shape
    writes, total = v.new_empty(chunks, rows * blocks, width), v.new_empty(chunks, width)
    group = max(1, 2**18 // max(rows * blocks * width, 1))  # what is worked on at once stays in cache
    for begin in range(0, chunks, group):
        part = slice(begin, begin + group)
        block_totals = _column_reads_rows(v[:, part], a[:, part], writes[part])
        totals = _decayed_factors_totals(block_totals, None if log_totals is None else log_totals[part])
        for products in totals[:-1]:
            pairs = products.shape[1] // 2
            earlier = writes[part].view(-1, 2, rows * blocks // (2 * pairs), width)[:, 0]
            earlier.mul_(products.view(-1, 2, 1, width)[:, 1])
        total[part] = totals[-1][:, 0]
    return writes, total


def column_reads(
    weights: Tensor, entering: Tensor, v: Tensor, a: Tensor, log_totals: Tensor | None = None
) -> Tensor:
    """o_i = e_i prod of a_l over l <= i + sum over j <= i of A[i, j] v_j prod of a_l over j < l <= i.

    Not differentiable: it is linear in what decayed_factors and decayed_factors_adjoint call the reads.

    Shapes:  weights [M, C, C] (read on and below the diagonal), entering [M, C, V] (overwritten), v, a as for
             column_writes -> o [b, M, C/b, V]
    """
    rows, chunks, blocks, width = v.shape
    out = torch.empty_like(v)
    group = max(1, 2**18 // max(rows * blocks * width, 1))
    writes = v.new_empty(min(group, chunks), rows * blocks, width)
    for begin in range(0, chunks, group):
        part = slice(begin, begin + group)
        given = v[:, part], a[:, part]
        block_totals = _column_reads_rows(*given, writes[: given[0].shape[1]])
        totals = _decayed_factors_totals(block_totals, None if log_totals is None else log_totals[part])
        _column_reads_levels(weights[part], entering[part], writes[: given[0].shape[1]], totals)
        _column_reads_diagonal(*given, weights[part], entering[part], out[:, part])
    return out


def _column_reads_rows(v: Tensor, a: Tensor, writes: Tensor) -> Tensor:
    """Decay values to their block's end; returns the blocks' totals [M, C/b, V]."""
    rows, _, blocks, _ = v.shape
    write_rows = writes.unflatten(1, (blocks, rows)).unbind(2)
    write_rows[-1].copy_(v[-1])
    suffix = a[-1].clone()
    for j in range(rows - 2, -1, -1):
        torch.mul(v[j], suffix, out=write_rows[j])
        suffix.mul_(a[j])
    return suffix


def _column_reads_levels(weights: Tensor, entering: Tensor, writes: Tensor, totals: list[Tensor]) -> None:
    """What later halves read of earlier ones, from the whole chunk down; `entering` ends up relative to the blocks."""
    chunks, size, width = writes.shape
    levels = []
    for products in totals[:-1]:
        pairs = products.shape[1] // 2
        earlier = writes.view(chunks * pairs, 2, size // (2 * pairs), width)[:, 0]
        first, second = products.view(chunks * pairs, 2, 1, width).unbind(1)
        levels.append((pairs, earlier.clone(), first))
        if pairs > 1:
            earlier.mul_(second)
    for pairs, earlier, first in reversed(levels):
        span = size // (2 * pairs)
        squares = weights.view(chunks, pairs, 2, span, pairs, 2, span).diagonal(dim1=1, dim2=4)
        between = squares[:, 1, :, 0].permute(0, 3, 1, 2).reshape(chunks * pairs, span, span)
        later = entering.view(chunks * pairs, 2, span, width)[:, 1]
        later.mul_(first).add_(torch.bmm(between, earlier))


def _column_reads_diagonal(v: Tensor, a: Tensor, weights: Tensor, entering: Tensor, out: Tensor) -> None:
    """What enters the blocks, and the blocks on the diagonal: values move on one row at a time, decayed where they go."""
    rows, chunks, blocks, _ = v.shape
    squares = weights.view(chunks, blocks, rows, blocks, rows).diagonal(dim1=1, dim2=3)
    enter_rows = entering.unflatten(1, (blocks, rows)).unbind(2)
    prefix = a[0].clone()
    torch.mul(enter_rows[0], prefix, out=out[0])
    for i in range(1, rows):
        torch.mul(enter_rows[i], prefix.mul_(a[i]), out=out[i])
    carried = v.clone()
    for lag in range(rows):
        moved = carried[: rows - lag]
        if lag:
            moved.mul_(a[lag:])
        out[lag:].addcmul_(squares.diagonal(-lag, dim1=1, dim2=2).permute(2, 0, 1).unsqueeze(-1), moved)
