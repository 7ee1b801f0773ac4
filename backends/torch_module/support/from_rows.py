"""Blocks of eight rows back to time."""

import torch
from torch import Tensor


def from_rows(rows: Tensor, time: int, dtype: torch.dtype) -> Tensor:
    """Copy [8, N, B, H, C/8, D] to [B, T, H, D], without what filled up the last chunk."""
    _, _, batch, heads, blocks, width = rows.shape
    size = 8 * blocks
    whole = time // size
    x = rows.new_empty(batch, time, heads, width, dtype=dtype)
    chunks = x[:, : whole * size].view(batch, whole, blocks, 8, heads, width)
    chunks.copy_(rows[:, :whole].permute(2, 1, 4, 0, 3, 5))
    if time > whole * size:
        last = rows[:, -1].permute(1, 3, 0, 2, 4).reshape(batch, size, heads, width)
        x[:, whole * size :] = last[:, : time - whole * size]
    return x
