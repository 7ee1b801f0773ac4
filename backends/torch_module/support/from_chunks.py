"""Chunks back to time."""

from torch import Tensor


def from_chunks(chunks: Tensor, out: Tensor) -> None:
    """Copy [N, B, H, C, D] to [B, T, H, D], without what filled up the last chunk."""
    size, time = chunks.shape[3], out.shape[1]
    whole = time // size
    out[:, : whole * size].unflatten(1, (whole, size)).copy_(chunks[:whole].permute(1, 0, 3, 2, 4))
    if time > whole * size:
        out[:, whole * size :] = chunks[-1, :, :, : time - whole * size].transpose(1, 2)
