"""What outputs of no positions depend on."""

import torch
from torch import Tensor


def zero_of(*given: Tensor, dtype: torch.dtype | None = None) -> Tensor | int:
    """A 0 that depends on those of these tensors that may have gradients, so that all of them get some; of `dtype` if named."""
    zeros = (x.flatten()[:0].sum() for x in given if x.is_floating_point() or x.is_complex())
    return sum(zero if dtype is None else zero.to(dtype) for zero in zeros)
