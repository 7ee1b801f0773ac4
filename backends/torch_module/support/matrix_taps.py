"""The taps c . A^l b of a time-invariant state: `matrix_rows` has the small powers, the large ones meet them here."""

import torch
from torch import Tensor


def matrix_taps(rows: Tensor, powers: list[Tensor], b: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """k[l] = c . A^l b for l < length: at l = j L + i the row c A^i times the column A^(j L) b.

    Shapes:  rows [.., L, N] and powers [.., N, N] from `matrix_rows`, b [.., N] -> k [.., length]
    """
    count = -(-length // rows.shape[-2])
    columns = b.to(torch.promote_types(rows.dtype, b.dtype)).unsqueeze(-1)  # [.., N, J]
    for power in powers[: max(count - 1, 0).bit_length()]:
        more = power @ columns
        columns = torch.cat([columns.expand(more.shape), more], -1)
    return (rows @ columns[..., :count]).mT.flatten(-2)[..., :length].to(dtype)
