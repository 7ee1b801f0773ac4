"""Powers of a matrix, the small ones from the left: what the taps of a time-invariant state have in common."""

import math

import torch
from torch import Tensor


def matrix_rows(c: Tensor, a: Tensor, length: int) -> tuple[Tensor, list[Tensor]]:
    """The rows c A^i for i < L, with L^2 >= length, and A^L, A^2L, A^4L, .., as many as double a column to length / L.

    Powers come from doubling, [x, x A], [x, x A, x A^2, x A^3], .., so an error grows with l; they are float64.
    Shapes:  c [.., N], a [.., N, N] -> [.., L, N], [.., N, N] each
    """
    wide = torch.complex128 if c.is_complex() or a.is_complex() else torch.float64
    power = a.to(wide)
    rows = c.to(wide).unsqueeze(-2) + 0 * power.sum(-2, keepdim=True)  # the lanes of A included
    for _ in range(math.ceil(math.log2(max(length, 1)) / 2)):
        rows = torch.cat([rows, rows @ power], -2)
        power = power @ power
    powers = [power]
    while rows.shape[-2] << len(powers) < length:
        powers.append(powers[-1] @ powers[-1])
    return rows, powers
