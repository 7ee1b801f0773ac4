"""Linear attention whose decays go with the columns of the state, chunk by chunk."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .chunk_states import chunk_states, chunk_states_adjoint
from .column_reads import column_reads, column_writes
from .decayed_factors import decayed_factors
from .decayed_factors_adjoint import decayed_factors_adjoint
from .from_chunks import from_chunks
from .from_rows import from_rows
from .to_chunks import to_chunks
from .to_rows import to_rows


def chunk_column_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    start: Tensor,
    o: Tensor,
    *,
    log: bool,
    size: int,
    scale: float,
    keep: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Write o [B, T, H, V]; the final state [B, H, K, V], and what the adjoint wants if it is to be kept.

    The weights (q k^T) do not know the decay: it acts on what they sum, so a chunk is a row-decayed product whose
    unknowns are the outputs, and its adjoint is the row-decayed product itself.
    """
    batch, _, heads, width = q.shape
    dtype = start.dtype
    q_chunks, k_chunks = (to_chunks(x, size, 0, dtype).flatten(0, 2) for x in (q, k))
    q_chunks.mul_(scale)
    values, decays = to_rows(v, size, 0, dtype), to_rows(decay, size, 0.0 if log else 1.0, dtype)
    count = values.shape[1]
    log_blocks = decays.sum(0).flatten(0, 2) if log else None
    if log:
        decays.exp_()
    v_rows, a_rows = values.flatten(1, 3), decays.flatten(1, 3)
    writes, total = column_writes(v_rows, a_rows, log_blocks)
    states = v.new_empty(count + 1, batch * heads, width, v.shape[-1], dtype=dtype)
    states[0] = start.flatten(0, 1)
    torch.bmm(k_chunks.mT, writes, out=states[1:].flatten(0, 1))
    log_total = None if log_blocks is None else log_blocks.sum(1).view(count, batch * heads, 1, -1)
    chunk_states(states, total.view(count, batch * heads, 1, -1), log_total)
    weights = torch.bmm(q_chunks, k_chunks.mT)
    entering = torch.bmm(q_chunks, states[:-1].flatten(0, 1))
    kept = (q_chunks, k_chunks, values, decays, weights, entering.clone(), states) if keep else ()
    from_rows(column_reads(weights, entering, v_rows, a_rows, log_blocks).view(values.shape), o)
    final = states[-1].view(batch, heads, width, -1).clone()
    return final, kept + ((log_blocks,) if keep and log_blocks is not None else ())


def chunk_column_attention_adjoint(
    d_o: Tensor,
    d_final: Tensor,
    saved: Sequence[Tensor],
    found: list[Tensor],
    *,
    log: bool,
    size: int,
    scale: float,
) -> Tensor:
    """Write the gradients of q, k, v and decay into `found`; that of the start."""
    q_chunks, k_chunks, values, decays, weights, entering, states, *log_blocks = saved
    count, batch, heads = values.shape[1:4]
    d_rows = to_rows(d_o, size, 0, states.dtype).flatten(1, 3)
    v_rows, a_rows = values.flatten(1, 3), decays.flatten(1, 3)
    d_weights, d_entering, writes, total = decayed_factors(d_rows, v_rows, a_rows, *log_blocks)
    d_states = torch.empty_like(states)
    torch.bmm(q_chunks.mT, d_entering, out=d_states[:-1].flatten(0, 1))
    d_states[-1] = d_final.flatten(0, 1)
    chunk_states_adjoint(d_states, total.view(count, batch * heads, 1, -1))
    before, d_leaving = states[:-1].flatten(0, 1), d_states[1:].flatten(0, 1)
    d_q = torch.bmm(d_weights, k_chunks).baddbmm_(d_entering, before.mT)
    d_k = torch.bmm(d_weights.mT, q_chunks).baddbmm_(writes, d_leaving.mT)
    d_writes = torch.bmm(k_chunks, d_leaving)
    d_total = d_leaving.mul_(before).sum(-2)
    _, d_v, d_a = decayed_factors_adjoint(
        d_rows, v_rows, a_rows, weights, entering.clone(), d_writes, d_total, *log_blocks
    )
    if log:
        d_a.mul_(a_rows)
    for d, into in zip((d_q.mul_(scale), d_k), found[:2], strict=True):
        from_chunks(d.view(count, batch, heads, size, -1), into)
    for d, into in zip((d_v, d_a), found[2:], strict=True):
        from_rows(d.view(values.shape), into)
    return d_states[0].view(d_final.shape)
