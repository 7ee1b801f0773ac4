"""Time in chunks, the chunk's number first."""

import torch
from torch import Tensor


def to_chunks(x: Tensor, size: int, fill: float, dtype: torch.dtype) -> Tensor:
    """Copy [B, T, H, D] to [N, B, H, C, D] with C = size, so that all chunks of one number are contiguous.

    The last chunk is filled up with `fill`.
    """
    batch, time, heads, width = x.shape
    whole = time // size
    chunks = x.new_empty(-(-time // size), batch, heads, size, width, dtype=dtype)
    chunks[:whole].copy_(x[:, : whole * size].unflatten(1, (whole, size)).permute(1, 0, 3, 2, 4))
    rest = time - whole * size
    if rest:
        chunks[-1, :, :, :rest] = x[:, whole * size :].transpose(1, 2)
        chunks[-1, :, :, rest:] = fill
    return chunks
