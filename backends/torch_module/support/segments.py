"""Which part of a batch of long sequences is worked on at once."""

import torch
from torch import Tensor

POSITIONS = 4096  # of all sequences and heads together, in a part
KEPT = 32768  # of which an adjoint finds kept what it wants of them


def segments(x: Tensor, size: int) -> tuple[list[tuple[slice, slice]], list[slice]]:
    """(batch, heads) slices, and slices of time, in whole chunks: parts of `POSITIONS`, or all at once off the CPU.

    What a part needs is reused by the next one while it is in the cache, and from memory that the allocator keeps;
    operations on large fresh tensors wait for memory, and for the kernel to fill pages with zeros. And of more than
    `KEPT` positions what an adjoint wants is computed again, part by part, so that it never exists for all of them.
    Shapes:  x [B, T, H, ..]
    """
    batch, time, heads = x.shape[:3]
    if x.device.type != "cpu" or batch * heads * time <= POSITIONS:
        return [(slice(None), slice(None))], [slice(0, time)]
    wide = min(heads, POSITIONS // size)
    deep = min(batch, POSITIONS // size // wide)
    long = size * max(1, POSITIONS // size // (wide * deep))
    lanes = [(slice(b, b + deep), slice(h, h + wide)) for b in range(0, batch, deep) for h in range(0, heads, wide)]
    return lanes, [slice(t, min(t + long, time)) for t in range(0, time, long)]


def is_kept(x: Tensor, *others: Tensor) -> bool:
    """Will an adjoint find kept what it wants of all segments? x [B, T, H, ..] says how many positions there are."""
    wanted = torch.is_grad_enabled() and any(g.requires_grad for g in (x, *others))
    return wanted and (x.device.type != "cpu" or x.shape[:3].numel() <= KEPT)
