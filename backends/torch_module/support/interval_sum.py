"""Sums over intervals of positions, as running sums."""

import torch
from torch import Tensor


def _running_sum(x: Tensor, dim: int, end: Tensor) -> Tensor:
    """y[.., t, ..] = the sum of x[r] over r < end[t]; the dimension gives way to those of `end`."""
    sums = torch.cat([torch.zeros_like(x.narrow(dim, 0, 1)), x.cumsum(dim)], dim) if x.shape[dim] else x.sum(dim, True)
    return torch.unflatten(sums.index_select(dim, end.clamp(0, x.shape[dim]).flatten()), dim, end.shape)


def _middle(begin: Tensor, end: Tensor, length: int) -> int | None:
    """A position that no interval begins after or ends before, as those between two blocks of positions have one."""
    if torch.compiler.is_compiling() or begin.is_meta or not begin.numel() or not end.numel():
        return None
    middle = min(max(int(begin.max()), 0), length)
    return middle if middle <= int(end.min()) else None


def interval_sum(x: Tensor, dim: int, *, begin: Tensor | None = None, end: Tensor | None = None) -> Tensor:
    """y[.., s, t, ..] = the sum of x[r] over begin[s] <= r < end[t], one end or both; of nothing it is 0.

    Nothing is subtracted: where both ends move, and no position is in all intervals or between two of them, each beginning
    has a running sum of its own, over S R numbers.
    Shapes:  x [.., R, ..] at dimension `dim`, begin [S..], end [T..] of integers -> [.., S.., T.., ..]
    """
    length = x.shape[dim]
    if begin is None:
        assert end is not None
        return _running_sum(x, dim, end)
    if end is None:
        return _running_sum(x.flip(dim), dim, length - begin)
    middle = _middle(begin, end, length)
    if middle is not None:  # every interval is what comes before it, and what comes after
        first, rest = x.narrow(dim, 0, middle), x.narrow(dim, middle, length - middle)
        before = _running_sum(first.flip(dim), dim, middle - begin)
        after = _running_sum(rest, dim, end - middle)
        for _ in end.shape:
            before = before.unsqueeze(dim + begin.dim())
        for _ in begin.shape:
            after = after.unsqueeze(dim)
        return before + after
    inside = torch.arange(length, device=x.device) >= begin.flatten()[:, None]
    inside = inside.view(*inside.shape, *[1] * (x.dim() - dim - 1))
    rows = torch.where(inside, x.unsqueeze(dim), 0)
    return torch.unflatten(_running_sum(rows, dim + 1, end), dim, begin.shape)
