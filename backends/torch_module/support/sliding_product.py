"""Products over windows of one width, wherever they begin."""

from torch import Tensor

from .sliding_sum import _sliding


def sliding_product(x: Tensor, dim: int, begin: Tensor, width: int) -> Tensor:
    """y[.., t, ..] = the product of x[r] over begin[t] <= r < begin[t] + width, with x = 1 outside; for any width in one
    pass, and nothing is divided by.

    Shapes:  x [.., R, ..] at dimension `dim`, begin [T..] of integers -> [.., T.., ..]
    """
    return _sliding(x, dim, begin, width, True)
