"""Products over intervals of positions, as running products."""

from torch import Tensor

from .interval_sum import _interval


def interval_product(x: Tensor, dim: int, *, begin: Tensor | None = None, end: Tensor | None = None) -> Tensor:
    """y[.., s, t, ..] = the product of x[r] over begin[s] <= r < end[t], one end or both; of nothing it is 1. Nothing is
    divided by.

    Shapes:  x [.., R, ..] at dimension `dim`, begin [S..], end [T..] of integers -> [.., S.., T.., ..]
    """
    return _interval(x, dim, begin, end, True)
