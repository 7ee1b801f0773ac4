"""Powers of a matrix: what the taps of a time-invariant state have in common."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .repeated_product import repeated_product

TAME = 8.0  # how large the powers of a diagonal may become before they are added to others that cancel them


def matrix_rows(
    c: Tensor, length: int, a: Tensor, lefts: Sequence[Tensor] = (), rights: Sequence[Tensor] = ()
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """The rows c A^(j L) for all j with j L < length, and the powers A, A^2, A^4, .., A^(L/2).

    Powers are squares of squares, so an error grows with l: they are taken in float64. Products with them are rounded once
    each, far less often than steps would be, and are of the dtype given. `a` is a matrix, or with `lefts` and `rights` a
    diagonal, to which these columns times rows are added: its powers are the same with twice as many columns each time.
    The last squares are not taken where as many products of a row cost less than one of them.
    Shapes:  c [.., N], a [.., N, N] or [.., N], lefts and rights [.., N] each -> [.., J, N]
    """
    given, size = [c, a, *lefts, *rights], c.shape[-1]
    own = c.dtype
    for x in given:
        own = torch.promote_types(own, x.dtype)
    wide = torch.complex128 if own.is_complex else torch.float64
    a, rows = a.to(wide), c.to(own).unsqueeze(-2)
    power: tuple[Tensor, ...] = (a,)
    if lefts:
        power = _with_lanes(a.expand(*a.shape[:-1], size), _beside(lefts, size, wide), _beside(rights, size, wide).mT)
    least = (max(length, 1).bit_length() - 1) // 2  # squares of a matrix: rows are at least as many as columns
    if lefts and (2 * len(lefts) >= size or not _is_tame(a, size // len(lefts))):
        power = (_whole(power),)
    rows = rows.expand(*torch.broadcast_shapes(rows.shape[:-2], power[-1].shape[:-2]), *rows.shape[-2:])
    powers: list[tuple[Tensor, ...]] = []
    while 1 << len(powers) < length and (len(powers) < least or len(power) > 1):
        powers.append(tuple(x.to(own) for x in power))
        power = _squared(power)
    count = -(-length // (1 << len(powers)))
    if count < 2:
        return rows, powers
    a = _whole(power)
    # As many products of a row as take a square's time: small ones take the call's, and with many rows for a matrix none pay.
    alone = rows.numel() * size <= a.numel()
    worth = 2 * size / (3 + (1 << 17) / max(1, a.numel())) if alone else 0.0
    while rows.shape[-2] < count and count > worth * rows.shape[-2]:
        rows, a = torch.cat([rows, rows @ a.to(own)], -2), a @ a
    return repeated_product(rows, a.to(own), -(-count // rows.shape[-2])), powers


def _beside(columns: Sequence[Tensor], size: int, dtype: torch.dtype) -> Tensor:
    """[.., N, R]; a column may be one number."""
    wide = [x.to(dtype).expand(*x.shape[:-1], size) for x in columns]
    return torch.stack(torch.broadcast_tensors(*wide), -1)


def _with_lanes(d: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """A diagonal, columns and rows with the lanes of all."""
    lanes = torch.broadcast_shapes(d.shape[:-1], u.shape[:-2], v.shape[:-2])
    return d.expand(*lanes, -1), u.expand(*lanes, -1, -1), v.expand(*lanes, -1, -1)


def _is_tame(a: Tensor, power: int) -> bool:
    """May the power of a diagonal be taken apart from the rest? Only a stable matrix with a diagonal that is not cancels."""
    if a.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False  # there are no numbers to decide by, or the device would be waited for
    return a.numel() > 0 and bool((a.abs().max() ** power).nan_to_num(torch.inf) <= TAME)


def _whole(power: tuple[Tensor, ...]) -> Tensor:
    if len(power) == 1:
        return power[0]
    found = power[1] @ power[2]
    found.diagonal(dim1=-2, dim2=-1).add_(power[0])
    return found


def _squared(power: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(D + U V)^2 = D^2 + (D U + U (V U)) V + U (V D): as a matrix as soon as that has no more numbers."""
    if len(power) == 1:
        return (power[0] @ power[0],)
    d, u, v = power
    left, right = torch.addcmul(u @ (v @ u), d.unsqueeze(-1), u), v * d.unsqueeze(-2)
    square = d * d, torch.cat([left, u], -1), torch.cat([v, right], -2)
    return square if 4 * u.shape[-1] < u.shape[-2] else (_whole(square),)
