"""Sums over windows of one width, wherever they begin."""

import torch
from torch import Tensor

from .interval_sum import interval_sum

USES = ("interval_sum",)


def sliding_sum(x: Tensor, dim: int, begin: Tensor, width: int) -> Tensor:
    """y[.., t, ..] = the sum of x[r] over begin[t] <= r < begin[t] + width, with x = 0 outside; for any width in one pass.

    Positions are cut into blocks as long as a window, which is then the end of one and the beginning of the next: sums up
    to each block's end, and from its beginning. Nothing is subtracted.
    Shapes:  x [.., R, ..] at dimension `dim`, begin [T..] of integers -> [.., T.., ..]
    """
    length = x.shape[dim]
    if width <= 0 or length == 0:
        return x.new_zeros(*x.shape[:dim], *begin.shape, *x.shape[dim + 1 :])
    if width >= length:  # then a window has an end in common with all
        return torch.where(
            (begin <= 0).view(*begin.shape, *[1] * (x.dim() - dim - 1)),
            interval_sum(x, dim, end=begin + width),
            interval_sum(x, dim, begin=begin),
        )
    count = -(-length // width) + 3  # a block before all, one after, and one that windows there reach into
    x = x.movedim(dim, 0)
    padded = x.new_zeros(count * width, *x.shape[1:])
    padded[width : width + length] = x
    blocks = padded.unflatten(0, (count, width))
    to_end = blocks.flip(1).cumsum(1).flip(1).flatten(0, 1)
    before = torch.cat([torch.zeros_like(blocks[:, :1]), blocks[:, :-1].cumsum(1)], 1).flatten(0, 1)
    at = (begin + width).clamp(0, length + width).flatten()
    found = to_end.index_select(0, at) + before.index_select(0, at + width)
    return torch.unflatten(found, 0, begin.shape).movedim(tuple(range(begin.dim())), tuple(range(dim, dim + begin.dim())))
