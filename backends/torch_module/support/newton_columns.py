"""Slopes of a nonlinear step: d after[i] / d before[k] for each pair of states, None where it is 0.

A slope is taken entry by entry; or, with one dimension more than a state, it is a matrix [.., entry after, entry before] over
the last one; or a diagonal (or None), columns and rows of a matrix of small rank, [.., N], [.., N, R] and [.., N, R].
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

_NewtonSlope = Tensor | None | tuple[Tensor | None, Tensor, Tensor]


def newton_columns(like: Tensor, *parts: Tensor) -> Tensor:
    """Columns side by side: parts with the dimensions of a state, or with ranks after them, where they do not vary of length 1."""
    full = [p.expand(*like.shape, *p.shape[like.dim() :]) for p in parts]
    full = [p.flatten(like.dim()) if p.dim() > like.dim() else p.unsqueeze(-1) for p in full]
    return torch.cat(full, -1) if len(full) > 1 else full[0]


def _newton_full(slopes: list[list[_NewtonSlope]]) -> list[list[Tensor | None]]:
    """The same, those of small rank as matrices."""
    return [[_newton_plus(s[1] @ s[2].mT, s[0]) if isinstance(s, tuple) else s for s in row] for row in slopes]


def _newton_gathered(
    steps: Sequence[list[list[_NewtonSlope]]], shape: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes of small rank of K steps, over the entries of all states, of a shape [.., N], one state after another:
    D [.., K, S, S, N], U and W [.., K, R, S N]."""
    count, (*lead, width) = len(steps[0]), shape
    known = [s for row in steps[0] for s in row if isinstance(s, tuple)]
    rank = sum(s[1].shape[-1] for s in known)
    diagonal = known[0][1].new_zeros(*lead, len(steps), count, count, width)
    left, right = (diagonal.new_zeros(*lead, len(steps), rank, count, width) for _ in range(2))
    for n, rows in enumerate(steps):
        last = 0
        for i, k in itertools.product(range(count), range(count)):
            slope = rows[i][k]
            d, u, w = slope if isinstance(slope, tuple) else (slope, None, None)
            if d is not None:
                diagonal[..., n, i, k, :] = d
            if u is not None and w is not None:
                first, last = last, last + u.shape[-1]
                left[..., n, first:last, i, :] = u.mT
                right[..., n, first:last, k, :] = w.mT
    return diagonal, left.flatten(-2), right.flatten(-2)


def _newton_product(
    slopes: list[list[Tensor | None]], before: list[list[Tensor | None]] | None, rank: int
) -> list[list[Tensor | None]]:
    """slopes @ before, as a block of slopes; a slope with more dimensions than a state, `rank`, is a matrix."""
    if before is None:
        return slopes
    n = range(len(slopes))
    found: list[list[Tensor | None]] = [[None for _ in n] for _ in n]
    for i, k, j in itertools.product(n, n, n):
        a, b = slopes[i][j], before[j][k]
        if a is not None and b is not None:
            found[i][k] = _newton_plus(_newton_times(a, b, rank), found[i][k])
    return found


def _newton_times(a: Tensor, b: Tensor, rank: int) -> Tensor:
    """The product of two slopes, entry by entry where they are, else of matrices."""
    if a.dim() > rank and b.dim() > rank:
        return a @ b
    if a.dim() > rank:
        return a * b.unsqueeze(-2)
    return a.unsqueeze(-1) * b if b.dim() > rank else a * b


def _newton_plus(a: Tensor, b: Tensor | None) -> Tensor:
    """The sum of two slopes; one entry by entry lies on the diagonal of a matrix."""
    if b is None or a.dim() == b.dim():
        return a if b is None else a + b
    matrix, diagonal = (a, b) if a.dim() > b.dim() else (b, a)
    return matrix + torch.diag_embed(diagonal.expand(*diagonal.shape[:-1], matrix.shape[-1]))


def _newton_matrix(slopes: list[list[Tensor | None]], state: Tensor) -> Tensor:
    """All slopes of a step as one matrix over the entries of all states, one state after another."""
    shape, none = (*state.shape, state.shape[-1]), state.new_zeros([1] * (state.dim() + 1))
    rows = []
    for row in slopes:
        full = [none if s is None else torch.diag_embed(s.expand_as(state)) if s.dim() == state.dim() else s for s in row]
        rows.append(torch.cat([s.expand(shape) for s in full], -1))
    return torch.cat(rows, -2)
