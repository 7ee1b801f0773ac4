"""The taps c . A^l b of a time-invariant state: `matrix_rows` has the large powers, the small ones meet them here."""

import torch
from torch import Tensor


def matrix_taps(
    rows: Tensor, powers: list[tuple[Tensor, ...]], b: Tensor, length: int, dtype: torch.dtype
) -> Tensor:
    """k[l] = c . A^l b for l < length: at l = j L + i the row c A^(j L) times the column A^i b. Its real part for a real dtype.

    Shapes:  rows [.., J, N] and powers from `matrix_rows`, b [.., N] -> k [.., length]
    """
    kind = torch.promote_types(rows.dtype, b.dtype)
    rows, columns = rows.to(kind), b.to(kind).unsqueeze(-2)  # [.., L, N]
    for power in [tuple(x.to(kind) for x in power) for power in powers]:
        if len(power) == 1:
            more = columns @ power[0].mT
        else:
            more = torch.addcmul((columns @ power[2].mT) @ power[1].mT, columns, power[0].unsqueeze(-2))
        columns = torch.cat([columns.expand(more.shape), more], -2)
    if rows.is_complex() and not dtype.is_complex:  # half of the products
        rows, columns = (torch.view_as_real(x.resolve_conj()).flatten(-2) for x in (rows, columns.conj()))
    return (rows @ columns.mT).flatten(-2)[..., :length].to(dtype)
