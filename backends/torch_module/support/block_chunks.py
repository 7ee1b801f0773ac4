"""Time in chunks for states in parts, and the decay's matrices in the precision that their products need."""

import torch
from torch import Tensor


def block_chunks(x: Tensor, size: int) -> Tensor:
    """[P, B, T, H, ..] -> [P, N B H, C, ..], chunks of C = size positions, N slowest, filled up with zeros."""
    extra = -x.shape[2] % size
    if extra:
        x = torch.cat([x, x.new_zeros(*x.shape[:2], extra, *x.shape[3:])], 2)
    return torch.unflatten(x, 2, (-1, size)).movedim(4, 2).movedim(3, 1).flatten(1, 3)


def block_decays(decay: Tensor, size: int, *, log: bool, dtype: torch.dtype) -> Tensor:
    """[B, T, H, P, P, K] -> [P, P, N B H, C, K], filled up with unit matrices. Products of many decays near 1 would
    drift in float32: they are formed in float64, of which exp of a log decay has all digits."""
    decay = decay.to(torch.promote_types(dtype, torch.float64))
    decay = decay.exp() if log else decay
    batch, time, heads, parts = decay.shape[:4]
    extra = -time % size
    if extra:
        one = torch.eye(parts, dtype=decay.dtype, device=decay.device).unsqueeze(-1)
        one = one.expand(batch, extra, heads, parts, parts, decay.shape[5])
        decay = torch.cat([decay, one], 1)
    chunks = block_chunks(decay.movedim(3, 0).movedim(4, 1).flatten(0, 1), size)
    return torch.unflatten(chunks, 0, (parts, parts))
