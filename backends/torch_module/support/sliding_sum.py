"""Sums over windows of one width, wherever they begin."""

import torch
from torch import Tensor

from .interval_sum import _interval


def _sliding(x: Tensor, dim: int, begin: Tensor, width: int, product: bool) -> Tensor:
    """The sum or product of what lies in a window.

    Positions are cut into blocks as long as a window, which is then the end of one and the beginning of the next: taken up
    to each block's end, and from its beginning.
    """
    length, unit = x.shape[dim], float(product)
    if width <= 0 or length == 0:
        return x.new_full((*x.shape[:dim], *begin.shape, *x.shape[dim + 1 :]), unit)
    if width >= length:  # then a window has an end in common with all
        return torch.where(
            (begin <= 0).view(*begin.shape, *[1] * (x.dim() - dim - 1)),
            _interval(x, dim, None, begin + width, product),
            _interval(x, dim, begin, None, product),
        )
    count = -(-length // width) + 3  # a block before all, one after, and one that windows there reach into
    x = x.movedim(dim, 0)
    padded = x.new_full((count * width, *x.shape[1:]), unit)
    padded[width : width + length] = x
    blocks = padded.unflatten(0, (count, width))
    along = torch.cumprod if product else torch.cumsum
    to_end = along(blocks.flip(1), 1).flip(1).flatten(0, 1)
    before = torch.cat([torch.full_like(blocks[:, :1], unit), along(blocks[:, :-1], 1)], 1).flatten(0, 1)
    at = (begin + width).clamp(0, length + width).flatten()
    first, rest = to_end.index_select(0, at), before.index_select(0, at + width)
    found = torch.unflatten(first * rest if product else first + rest, 0, begin.shape)
    return found.movedim(tuple(range(begin.dim())), tuple(range(dim, dim + begin.dim())))


def sliding_sum(x: Tensor, dim: int, begin: Tensor, width: int) -> Tensor:
    """y[.., t, ..] = the sum of x[r] over begin[t] <= r < begin[t] + width, with x = 0 outside; for any width in one pass,
    and nothing is subtracted.

    Shapes:  x [.., R, ..] at dimension `dim`, begin [T..] of integers -> [.., T.., ..]
    """
    return _sliding(x, dim, begin, width, False)
