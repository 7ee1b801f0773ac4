"""Steps x -> D x + U^T (W x) of a vector of entries: a diagonal, or a small block for each entry, and a few rows.

D [.., S, S, N], U and W [.., R, S N]: S states of N entries one after another, so that x is [.., S N]. No matrix over the
entries is formed: products add their ranks, and are only taken over pieces.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def _low_rank_decayed(d: Tensor, x: Tensor) -> Tensor:
    """D x."""
    count = d.shape[-2]
    if count == 1:
        return d[..., 0, 0, :] * x
    parts = x.unflatten(-1, (count, -1)).unbind(-2)
    rows = [d[..., i, 0, :] * parts[0] for i in range(count)]
    for i in range(count):
        for k in range(1, count):
            rows[i].addcmul_(d[..., i, k, :], parts[k])
    return torch.cat(rows, -1)


def _low_rank_step(d: Tensor, u: Tensor, w: Tensor, x: Tensor) -> Tensor:
    """D x + U^T (W x)."""
    return _low_rank_decayed(d, x) + (u.mT @ (w @ x.unsqueeze(-1))).squeeze(-1)


def _low_rank_product(d: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A power of two of steps, [.., K, S, S, N] and [.., K, R, S N], as one of rank K R. Overwrites u and w.

    By doubling: of two steps, D2 D1 + (D2 U1 + U2 (W2 U1^T))^T W1 + U2^T (W2 D1), where rows stay in their places.
    """
    steps, rank, width = u.shape[-3:]
    lead, count = u.shape[:-3], d.shape[-2]
    d = d.reshape(-1, *d.shape[-3:])
    while rank < steps * u.shape[-2]:
        d1, d2 = d.unflatten(0, (-1, 2)).unbind(1)
        u1, u2 = u.view(-1, 2, rank, width).unbind(1)
        w1, w2 = w.view(-1, 2, rank, width).unbind(1)
        pairs = torch.bmm(u1, w2.mT)
        if count == 1:
            u1.mul_(d2[:, 0])
            w2.mul_(d1[:, 0])
            d = d2 * d1
        else:
            u1.copy_(_low_rank_decayed(d2.unsqueeze(1), u1))
            w2.copy_(_low_rank_decayed(d1.unsqueeze(1).transpose(-3, -2), w2))
            d = torch.cat([_low_rank_decayed(d2, d1[:, :, k].flatten(1)).unsqueeze(1) for k in range(count)], 1)
            d = d.unflatten(-1, (count, -1)).transpose(1, 2)
        u1.baddbmm_(pairs, u2)
        rank *= 2
    return d.view(*lead, *d.shape[1:]), u.view(*lead, rank, width), w.view(*lead, rank, width)


def _low_rank_moved(d: Tensor, u: Tensor, w: Tensor, gaps: Sequence[Tensor]) -> list[Tensor]:
    """d[n+1] = r[n] + P[n] d[n], d[0] = 0 along dim 1, of each state."""
    pieces = [x.unbind(1) for x in (d, u, w)]
    each = torch.cat(list(gaps), -1).unbind(1)
    moved = [each[0]]
    for n in range(1, len(each)):
        moved.append(_low_rank_step(pieces[0][n], pieces[1][n], pieces[2][n], moved[-1]) + each[n])
    return list(torch.stack(moved, 1).unflatten(-1, (len(gaps), -1)).unbind(-2))


def low_rank_scan(d: Tensor, u: Tensor, w: Tensor, value: Tensor, *, size: int = 64) -> Tensor:
    """x[t] = D[t] x[t-1] + U[t]^T (W[t] x[t-1]) + value[t], x[-1] = 0: chunks take a step together, and hand their ends on
    by their products.

    Shapes:  d [.., T, S, S, N], u and w [.., T, R, S N], value [.., T, S N] -> [.., T, S N]
    """
    time = value.shape[-2]
    count = -(-time // size)

    def chunks(x: Tensor, dim: int) -> Tensor:
        """[.., T, ..] -> [.., count, size, ..], the last chunk filled up with zeros."""
        if count * size != time:
            x = torch.cat([x, x.new_zeros(*x.shape[:dim], count * size - time, *x.shape[dim + 1 :])], dim)
        return torch.unflatten(x, dim, (count, size))

    at = value.dim() - 2
    d, u, w, b = (chunks(x, at) for x in (d, u, w, value))
    steps = list(zip(*(x.unbind(at + 1) for x in (d, u, w, b)), strict=True))
    state = torch.zeros_like(steps[0][3])
    if count > 1:
        for one, left, right, more in steps:
            state = _low_rank_step(one, left, right, state) + more
        ends = state.unbind(at)
        wholes = zip(*(x.unbind(at) for x in _low_rank_product(d, u.clone(), w.clone())), strict=True)
        states = [torch.zeros_like(ends[0])]
        for (one, left, right), end in zip(wholes, ends[:-1], strict=False):
            states.append(_low_rank_step(one, left, right, states[-1]) + end)
        state = torch.stack(states, at)
    found = []
    for one, left, right, more in steps:
        state = _low_rank_step(one, left, right, state) + more
        found.append(state)
    return torch.stack(found, at + 1).flatten(at, at + 1).narrow(at, 0, time)
