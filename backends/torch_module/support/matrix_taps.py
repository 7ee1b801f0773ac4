"""The taps c . A^l b of a time-invariant state, by small powers from the left and large ones from the right."""

import math

import torch
from torch import Tensor


def matrix_taps(c: Tensor, a: Tensor, b: Tensor, length: int) -> Tensor:
    """k[l] = c . A^l b for l < length: rows c A^i for i < L, columns A^(j L) b, and their products at l = j L + i.

    Powers come from doubling, [x, A x], [x, A x, A^2 x, A^3 x], .., so an error grows with l; they are float64.
    Shapes:  c [.., N], a [.., N, N], b [.., N] -> k [.., length], float32 for 16 bits
    """
    dtype = torch.float32
    for given in (c, a, b):
        dtype = torch.promote_types(dtype, given.dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    power = a.to(wide)
    inner = 1 << max(0, math.ceil(math.log2(max(length, 1)) / 2))
    rows = c.to(wide).unsqueeze(-2) + 0 * power[..., :1, :]  # [.., L, N], the lanes of A included
    while rows.shape[-2] < inner:
        rows = _matrix_taps_join(rows, rows @ power, -2)
        power = power @ power
    columns = b.to(wide).unsqueeze(-1)  # [.., N, J]
    outer = -(-length // inner)
    while columns.shape[-1] < outer:
        columns = _matrix_taps_join(columns, power @ columns, -1)
        power = power @ power
    return (rows @ columns[..., :outer]).mT.flatten(-2)[..., :length].to(dtype)


def _matrix_taps_join(x: Tensor, more: Tensor, dim: int) -> Tensor:
    shape = torch.broadcast_shapes(x.shape, more.shape)
    return torch.cat([x.expand(shape), more], dim)
