"""Time in chunks of blocks of eight rows, the row's number first."""

import torch
from torch import Tensor


def to_rows(x: Tensor, size: int, fill: float, dtype: torch.dtype) -> Tensor:
    """Copy [B, T, H, D] to [8, N, B, H, C/8, D] with C = size, so that one row of every block is contiguous.

    The last chunk is filled up with `fill`.
    """
    batch, time, heads, width = x.shape
    whole, blocks = time // size, size // 8
    rows = x.new_empty(8, -(-time // size), batch, heads, blocks, width, dtype=dtype)
    chunks = x[:, : whole * size].reshape(batch, whole, blocks, 8, heads, width)
    rows[:, :whole].copy_(chunks.permute(3, 1, 0, 4, 2, 5))
    if time > whole * size:
        last = x.new_full((batch, size, heads, width), fill, dtype=dtype)
        last[:, : time - whole * size] = x[:, whole * size :]
        rows[:, -1] = last.unflatten(1, (blocks, 8)).permute(2, 0, 3, 1, 4)
    return rows
