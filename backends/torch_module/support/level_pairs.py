"""The pairs of a position and an item whose keys are equal, found by sorting."""

import torch
from torch import Tensor


def _level_pairs_of(mask: Tensor) -> Tensor:
    """(sequence, position, item) of each True in a mask [B, T, I]."""
    return torch.zeros(3, 0, dtype=torch.long, device="meta") if mask.is_meta else mask.nonzero().T


def _level_pairs_kept(pairs: Tensor, kept: Tensor) -> Tensor:
    """The pairs for which a condition holds."""
    return pairs if pairs.is_meta else pairs[:, kept]


def level_pairs(rows: Tensor, items: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(sequence, position, item) for each rows[b, t] == items[b, i], position by position: as many columns as pairs.

    Shapes:  rows [B or 1, T or 1], items [B or 1, I or 1], shape (B, T, I) -> [3, P]
    """
    batch, time, count = shape
    if rows.is_meta or items.is_meta:  # without numbers, shapes alone
        return torch.zeros(3, 0, dtype=torch.long, device="meta")
    rows, items = rows.expand(batch, time), items.expand(batch, count).contiguous()
    ordered, by = items.sort(dim=1, stable=True)
    wanted = rows.contiguous()
    first = torch.searchsorted(ordered, wanted).flatten()
    number = torch.searchsorted(ordered, wanted, right=True).flatten() - first
    place = torch.arange(batch * time, device=rows.device).repeat_interleave(number)
    inside = torch.arange(len(place), device=rows.device) - (number.cumsum(0) - number).repeat_interleave(number)
    sequence = place // max(time, 1)
    return torch.stack([sequence, place % max(time, 1), by[sequence, first[place] + inside]])
