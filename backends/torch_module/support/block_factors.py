"""What a chunk needs to know of a decay that is a small matrix for each key: products only, joined two by two."""

import torch
from torch import Tensor


def _block_factors_sum(a: Tensor, x: Tensor) -> Tensor:
    """sum over m of a[m] * x[m]"""
    total = a[0] * x[0]
    for m in range(1, len(a)):
        total = torch.addcmul(total, a[m], x[m])
    return total


def _block_factors_apply(a: Tensor, x: Tensor) -> Tensor:
    """The matrix of each span on all its rows: [P, P', M, N, K], [P', M, N, rows, K] -> [P, M, N, rows, K]."""
    a = a.to(x.dtype).unsqueeze(-2)
    return torch.stack([_block_factors_sum(row, x) for row in a])


def _block_factors_pairs(w: Tensor, u: Tensor) -> Tensor:
    pairs = w[0] @ u[0].mT
    for p in range(1, len(w)):
        pairs = pairs + w[p] @ u[p].mT
    return pairs


def block_factors(w: Tensor, u: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs G[i r, j s] = w_ir . a_i .. a_{j+1} u_js for j <= i; reads (a_i .. a_0)^T w_i; writes a_{C-1} .. a_{j+1} u_j.

    Spans of positions are joined two by two, reads relative to a span's start and writes to its end: nothing is formed
    but products of matrices in the order of time, so any decay is safe. The matrices' own products are formed in the
    precision of a, which may be higher: of many decays near 1 they would drift.

    Shapes:  w [P, M, C, R, K], u [P, M, C, S, K], a [P, P, M, C, 1 or K], C a power of two
             -> pairs [M, C R, C S], reads as w, writes as u, total [P, P, M, 1 or K], the product of all a
    """
    parts, chunks, size, ranks, width = w.shape
    pairs = _block_factors_pairs(w, u)  # [M, N, rows of a span, columns of a span]
    reads, writes, total = _block_factors_apply(a.transpose(0, 1), w), u, a
    while reads.shape[2] > 1:
        before, later = reads.unflatten(2, (-1, 2)).unbind(3)
        earlier, behind = writes.unflatten(2, (-1, 2)).unbind(3)
        first, second = total.unflatten(3, (-1, 2)).unbind(4)
        above, below = pairs.unflatten(1, (-1, 2)).unbind(2)
        corner = _block_factors_pairs(later, earlier)
        pairs = torch.cat([torch.cat([above, torch.zeros_like(corner)], -1), torch.cat([corner, below], -1)], -2)
        reads = torch.cat([before, _block_factors_apply(first.transpose(0, 1), later)], 3)
        writes = torch.cat([_block_factors_apply(second, earlier), behind], 3)
        columns = first.transpose(0, 1)
        total = torch.stack(
            [torch.stack([_block_factors_sum(row, column) for column in columns]) for row in second]
        )
    shape = parts, chunks, size, -1, width
    return pairs[:, 0], reads.view(shape), writes.view(shape), total[:, :, :, 0].to(w.dtype)
