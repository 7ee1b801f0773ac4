"""Blocks of eight rows back to time."""

from torch import Tensor


def from_rows(rows: Tensor, out: Tensor) -> None:
    """Copy [8, N, B, H, C/8, D] to [B, T, H, D], without what filled up the last chunk."""
    _, _, batch, heads, blocks, width = rows.shape
    size, time = 8 * blocks, out.shape[1]
    whole = time // size
    out[:, : whole * size].unflatten(1, (whole, blocks, 8)).copy_(rows[:, :whole].permute(2, 1, 4, 0, 3, 5))
    if time > whole * size:
        last = rows[:, -1].permute(1, 3, 0, 2, 4).reshape(batch, size, heads, width)
        out[:, whole * size :] = last[:, : time - whole * size]
