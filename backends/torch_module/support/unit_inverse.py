"""Inverses of unit lower triangular matrices, many at once: rows by substitution, then blocks joined two by two."""

import torch
from torch import Tensor


def unit_inverse(below: Tensor) -> Tensor:
    """(I + L)^-1 for L strictly lower triangular [M, n, n]; what stands on and above its diagonal is not read.

    Not differentiable. Each joint is refined once by its residual: nearly parallel keys written with a rate near 2 lose
    a digit in it otherwise.
    """
    count, size, _ = below.shape
    if size <= 8 or size % 2:
        inverse = torch.eye(size, dtype=below.dtype, device=below.device).expand(count, size, size).contiguous()
        for i in range(1, size):
            inverse[:, i, :i] -= torch.bmm(below[:, i : i + 1, :i], inverse[:, :i, :i]).squeeze(1)
        return inverse
    half = size // 2
    blocks = below.unflatten(1, (2, half)).unflatten(3, (2, half)).diagonal(dim1=1, dim2=3)
    first, second = unit_inverse(blocks.permute(0, 3, 1, 2).flatten(0, 1)).unflatten(0, (count, 2)).unbind(1)
    inverse = below.new_empty(below.shape)
    inverse[:, :half, :half], inverse[:, :half, half:], inverse[:, half:, half:] = first, 0, second
    rest = torch.bmm(below[:, half:, :half], first)
    joint = torch.bmm(second, rest).neg_()
    # (I + L_22) joint + L_21 first should be 0.
    rest.add_(joint).baddbmm_(below[:, half:, half:].tril(-1), joint)
    inverse[:, half:, :half] = joint.baddbmm_(second, rest, alpha=-1)
    return inverse
