"""Sums over intervals of positions, as running sums."""

import torch
from torch import Tensor


def _running(x: Tensor, dim: int, end: Tensor, product: bool) -> Tensor:
    """Over r < end[t], for every t: the dimension gives way to those of `end`."""
    unit = torch.full_like(x[(slice(None),) * dim + (slice(0, 1),)], float(product))
    if x.shape[dim] == 0:
        unit = x.sum(dim, True) + float(product)
    every = torch.cat([unit, x.cumprod(dim) if product else x.cumsum(dim)], dim)
    return torch.unflatten(every.index_select(dim, end.clamp(0, x.shape[dim]).flatten()), dim, end.shape)


def _middle(begin: Tensor, end: Tensor, length: int) -> int | None:
    """A position that no interval begins after or ends before, as those between two blocks of positions have one."""
    if torch.compiler.is_compiling() or begin.is_meta or not begin.numel() or not end.numel():
        return None
    middle = min(max(int(begin.max()), 0), length)
    return middle if middle <= int(end.min()) else None


def _interval(x: Tensor, dim: int, begin: Tensor | None, end: Tensor | None, product: bool) -> Tensor:
    """The sum or product of what lies in an interval."""
    length = x.shape[dim]
    if begin is None:
        assert end is not None
        return _running(x, dim, end, product)
    if end is None:
        return _running(x.flip(dim), dim, length - begin, product)
    middle = _middle(begin, end, length)
    if middle is not None:  # every interval is what comes before it, and what comes after
        first, rest = x.narrow(dim, 0, middle), x.narrow(dim, middle, length - middle)
        before = _running(first.flip(dim), dim, middle - begin, product)
        after = _running(rest, dim, end - middle, product)
        for _ in end.shape:
            before = before.unsqueeze(dim + begin.dim())
        for _ in begin.shape:
            after = after.unsqueeze(dim)
        return before * after if product else before + after
    inside = torch.arange(length, device=x.device) >= begin.flatten()[:, None]
    inside = inside.view(*inside.shape, *[1] * (x.dim() - dim - 1))
    rows = torch.where(inside, x.unsqueeze(dim), int(product))
    return torch.unflatten(_running(rows, dim + 1, end, product), dim, begin.shape)


def interval_sum(x: Tensor, dim: int, *, begin: Tensor | None = None, end: Tensor | None = None) -> Tensor:
    """y[.., s, t, ..] = the sum of x[r] over begin[s] <= r < end[t], one end or both; of nothing it is 0.

    Nothing is subtracted: where both ends move, and no position is in all intervals or between two of them, each beginning
    has a running sum of its own, over S R numbers.
    Shapes:  x [.., R, ..] at dimension `dim`, begin [S..], end [T..] of integers -> [.., S.., T.., ..]
    """
    return _interval(x, dim, begin, end, False)
