"""Reads of a state in parts whose decay is a small matrix for each key, chunk by chunk, without the state."""

import torch
from torch import Tensor

from .block_chunks import block_chunks, block_decays
from .block_factors import block_factors
from .zero_of import zero_of


def block_read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    start: Tensor | None = None,
    *,
    log: bool = True,
    strict: bool = False,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """S[t] = a[t] S[t-1] + k[t] v[t]^T; o[t] = q[t] . S[t] over all P parts, or strictly q[t] . S[t-1]; final = S[T-1].

    Shapes:  q, k [B, T, H, P, K], v [B, T, H, V], decay [B, T, H, P, P, 1 or K], start [B, H, P, K, V] or None; axes
             but P may be 1 -> o [B, T, H, V], final [B, H, P, K, V], both float32 for 16 bits
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf)
    """
    parts = decay.shape[3]
    if start is None:
        start = torch.zeros((1, 1, parts, 1, 1), dtype=v.dtype, device=v.device)
    dtype = torch.float32
    for given in (q, k, v, decay, start):
        dtype = torch.promote_types(dtype, given.dtype)
    lead = [g.shape[:3] for g in (q, k, v, decay)]
    batch, time, heads = torch.broadcast_shapes(*lead, (start.shape[0], 1, start.shape[1]))
    (width,) = torch.broadcast_shapes(q.shape[4:], k.shape[4:], decay.shape[5:], start.shape[3:4])
    (columns,) = torch.broadcast_shapes(v.shape[3:], start.shape[4:])
    q, k = (g.to(dtype).expand(batch, time, heads, parts, width) for g in (q, k))
    v = v.to(dtype).expand(batch, time, heads, columns)
    decay = decay.expand(batch, time, heads, parts, parts, decay.shape[5])
    start = start.to(dtype).expand(batch, heads, parts, width, columns)
    if 0 in (batch, time, heads, width, columns):
        nothing = zero_of(decay, k, v)
        return (q * k).sum((3, 4)).unsqueeze(3) * v + nothing, start + nothing
    size = min(chunk, max(8, 1 << (time - 1).bit_length()))
    left, right = (block_chunks(g.movedim(3, 0), size) for g in (q, k))  # [P, M, C, K]
    given = block_chunks(v.unsqueeze(0), size).squeeze(0)
    matrices = block_decays(decay, size, log=log, dtype=dtype)
    first = left[:, :, :1]
    if strict:  # a read before the step is a read after the step before it
        left = torch.cat([left[:, :, 1:], torch.zeros_like(first)], 2)
    pairs, reads, writes, total = block_factors(left.unsqueeze(3), right.unsqueeze(3), matrices)
    reads, writes = reads.squeeze(3), writes.squeeze(3)
    if strict:
        pairs = torch.cat([torch.zeros_like(pairs[:, :1]), pairs[:, :-1]], 1)
        reads = torch.cat([first, reads[:, :, :-1]], 2)
    more = (writes.mT @ given).unflatten(1, (-1, batch * heads)).unbind(1)  # [P, B H, K, V] for each chunk
    kept = total.unsqueeze(-1).unflatten(2, (-1, batch * heads)).unbind(2)  # [P, P, B H, 1 or K, 1]
    states = [start.movedim(2, 0).flatten(1, 2)]
    for step, write in zip(kept, more, strict=True):
        states.append((step * states[-1]).sum(1) + write)
    entering = torch.stack(states[:-1], 1).flatten(1, 2)  # [P, M, K, V]
    o = pairs @ given + (reads @ entering).sum(0)
    o = o.unflatten(0, (-1, batch, heads)).permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :time]
    return o, states[-1].unflatten(1, (batch, heads)).movedim(0, 2)
