"""The taps c . A^l b of a time-invariant state: `matrix_rows` has the large powers, the small ones meet them here."""

import torch
from torch import Tensor


def matrix_taps(
    rows: Tensor, powers: list[tuple[Tensor, ...]], b: Tensor, length: int, dtype: torch.dtype
) -> Tensor:
    """k[l] = c . A^l b for l < length: at l = j L + i the row c A^(j L) times the column A^i b.

    Shapes:  rows [.., J, N] and powers from `matrix_rows`, b [.., N] -> k [.., length]
    """
    columns = b.to(torch.promote_types(rows.dtype, b.dtype)).unsqueeze(-1)  # [.., N, L]
    for power in powers:
        if len(power) == 1:
            more = power[0] @ columns
        else:
            more = torch.addcmul(power[1] @ (power[2] @ columns), power[0].unsqueeze(-1), columns)
        columns = torch.cat([columns.expand(more.shape), more], -1)
    return (rows @ columns).flatten(-2)[..., :length].to(dtype)
