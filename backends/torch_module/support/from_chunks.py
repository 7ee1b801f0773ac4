"""Chunks back to time."""

import torch
from torch import Tensor


def from_chunks(chunks: Tensor, time: int, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
    """Copy [N, B, H, C, D] to [B, T, H, D], `out` where it is given, without what filled up the last chunk."""
    _, batch, heads, size, width = chunks.shape
    whole = time // size
    x = chunks.new_empty(batch, time, heads, width, dtype=dtype) if out is None else out
    x[:, : whole * size].unflatten(1, (whole, size)).copy_(chunks[:whole].permute(1, 0, 3, 2, 4))
    if time > whole * size:
        x[:, whole * size :] = chunks[-1, :, :, : time - whole * size].transpose(1, 2)
    return x
