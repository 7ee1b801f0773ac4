"""Feedback through a state in parts whose decay is a small matrix for each key, chunk by chunk."""

import torch
from torch import Tensor

from .block_chunks import block_chunks, block_decays
from .block_factors import block_factors
from .zero_of import zero_of


def block_solve(
    w: Tensor,
    u: Tensor,
    x: Tensor,
    decay: Tensor,
    start: Tensor | None = None,
    *,
    log: bool = True,
    chunk: int = 64,
) -> Tensor:
    """y[t] = x[t] + w[t] S[t-1], S[t] = a[t] S[t-1] + u[t]^T y[t], for R ranks at once; w and a act on all P parts of S.

    Inside a chunk (I - G) y = x + W S with the S that enters it, and G strictly lower triangular, as in `chunk_solve`.

    Shapes:  w, u [B, T, H, R, P, K], x [B, T, H, R, V], decay [B, T, H, P, P, 1 or K], start [B, H, P, K, V] or None;
             axes but P may be 1 -> y [B, T, H, R, V], float32 for 16 bits
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf)
    """
    parts = decay.shape[3]
    if start is None:
        start = torch.zeros((1, 1, parts, 1, 1), dtype=x.dtype, device=x.device)
    dtype = torch.float32
    for given in (w, u, x, decay, start):
        dtype = torch.promote_types(dtype, given.dtype)
    lead = [g.shape[:3] for g in (w, u, x, decay)]
    batch, time, heads = torch.broadcast_shapes(*lead, (start.shape[0], 1, start.shape[1]))
    (ranks,) = torch.broadcast_shapes(w.shape[3:4], u.shape[3:4], x.shape[3:4])
    (width,) = torch.broadcast_shapes(w.shape[5:], u.shape[5:], decay.shape[5:], start.shape[3:4])
    (columns,) = torch.broadcast_shapes(x.shape[4:], start.shape[4:])
    w, u = (g.to(dtype).expand(batch, time, heads, ranks, parts, width) for g in (w, u))
    x = x.to(dtype).expand(batch, time, heads, ranks, columns)
    decay = decay.expand(batch, time, heads, parts, parts, decay.shape[5])
    start = start.to(dtype).expand(batch, heads, parts, width, columns)
    if 0 in (batch, time, heads, ranks, width, columns):
        return x + zero_of(w * u, decay, start)
    size = min(max(8, chunk // (1 << (ranks - 1).bit_length())), max(8, 1 << (time - 1).bit_length()))
    left, right = (block_chunks(g.movedim(4, 0), size) for g in (w, u))  # [P, M, C, R, K]
    given = block_chunks(x.unsqueeze(0), size).squeeze(0)
    matrices = block_decays(decay, size, log=log, dtype=dtype)
    # A read before the decay is a read after the step before it; the first one sees what entered the chunk.
    moved = torch.cat([left[:, :, 1:], torch.zeros_like(left[:, :, :1])], 2)
    pairs, reads, writes, total = block_factors(moved, right, matrices)
    pairs = torch.cat([torch.zeros_like(pairs[:, :ranks]), pairs[:, :-ranks]], 1)
    reads = torch.cat([left[:, :, :1], reads[:, :, :-1]], 2)
    reads, leaving = (g.flatten(2, 3).movedim(0, 2).flatten(2) for g in (reads, writes))  # [M, C R, P K]
    unit = torch.eye(pairs.shape[-1], dtype=dtype, device=pairs.device)
    rows = torch.cat([given.flatten(1, 2), reads], -1)
    both = torch.linalg.solve_triangular(unit - pairs, rows, upper=False, unitriangular=True)
    alone, answers = both.split([columns, parts * width], -1)
    kept = torch.diag_embed(total.expand(parts, parts, -1, width))  # [P, P, M, K, K]
    kept = kept.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    steps = (kept + leaving.mT @ answers).unflatten(0, (-1, batch * heads))
    more = (leaving.mT @ alone).unflatten(0, (-1, batch * heads))
    states = [start.flatten(2, 3).flatten(0, 1)]
    for step, write in zip(steps.unbind(0), more.unbind(0), strict=True):
        states.append(torch.baddbmm(write, step, states[-1]))
    y = torch.baddbmm(alone, answers, torch.cat(states[:-1]))
    y = torch.unflatten(y, 1, (size, ranks)).unflatten(0, (-1, batch, heads)).permute(1, 0, 3, 2, 4, 5)
    return torch.flatten(y, 1, 2)[:, :time]
