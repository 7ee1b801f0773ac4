"""Which part of a batch of long sequences is worked on at once."""

import torch


def segments(
    batch: int, time: int, heads: int, size: int, device: torch.device
) -> tuple[list[tuple[slice, slice]], list[slice]]:
    """(batch, heads) slices, and slices of time: up to 512 chunks are taken as one, and so is everything off the CPU.

    More are cut into parts of about 64 whole chunks. What these need is reused while it is in the cache, and from memory
    that the allocator keeps; operations on large fresh tensors wait for the kernel to fill pages with zeros. And what
    an adjoint wants of a part can be computed again where it is needed, so that it never exists for all of them.
    """
    if device.type != "cpu" or batch * heads * (time // size) <= 512:
        return [(slice(None), slice(None))], [slice(0, time)]
    wide = min(heads, 64)
    deep = min(batch, 64 // wide)
    long = size * max(1, 64 // (wide * deep))
    lanes = [(slice(b, b + deep), slice(h, h + wide)) for b in range(0, batch, deep) for h in range(0, heads, wide)]
    return lanes, [slice(t, min(t + long, time)) for t in range(0, time, long)]
