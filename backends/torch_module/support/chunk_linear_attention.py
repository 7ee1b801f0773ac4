"""Linear attention with decays, chunk by chunk: products inside a chunk, one state between two chunks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .chunk_column_attention import chunk_column_attention, chunk_column_attention_adjoint
from .chunk_states import chunk_states, chunk_states_adjoint
from .decay_apply import decay_apply
from .decay_gram import decay_gram
from .decayed_factors import decayed_factors
from .decayed_factors_adjoint import decayed_factors_adjoint
from .from_chunks import from_chunks
from .from_rows import from_rows
from .prefix_products import prefix_products
from .segment_products import segment_products
from .segments import is_kept, segments
from .shared_factors import shared_factors
from .shared_factors_adjoint import shared_factors_adjoint
from .suffix_products import suffix_products
from .to_chunks import to_chunks
from .to_rows import to_rows
from .zero_of import zero_of


class _ChunkLinearAttention(torch.autograd.Function):
    """Keeps the inputs and the states where segments start, and of few positions the weights of their chunks: of more the
    adjoint forms a segment's weights again. No gradient passes through an exp.

    M = N B H chunks of a segment are worked on at once; the only loop goes over its N states. The adjoint has the same
    shape.
    """

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        decay: Tensor,
        start: Tensor,
        log: bool,
        size: int,
        columns: bool,
        scale: float,
        keep: bool,
    ) -> tuple[Tensor, ...]:
        chunks = chunk_column_attention if columns else _chunk_linear_attention_chunks
        lanes, parts = segments(q, size)
        o, final = v.new_empty(v.shape, dtype=start.dtype), start.new_empty(start.shape)
        starts = start.new_empty(len(parts), *start.shape)
        saved: list[Tensor] = []
        for b, h in lanes:
            state = start[b, h]
            for n, t in enumerate(parts):
                starts[n, b, h] = state
                part = q[b, t, h], k[b, t, h], v[b, t, h], decay[b, t, h]
                state, kept = chunks(*part, state, o[b, t, h], log=log, size=size, scale=scale, keep=keep)
                saved += kept
            final[b, h] = state
        return o, final, starts, *saved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *given, ctx.log, ctx.size, ctx.columns, ctx.scale, _ = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *output[2:])

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, decay, start, starts, *kept = ctx.saved_tensors
        d_o = torch.zeros_like(v, dtype=start.dtype) if grads[0] is None else grads[0]
        d_final = torch.zeros_like(start) if grads[1] is None else grads[1]
        flags = {"log": ctx.log, "size": ctx.size, "scale": ctx.scale}
        if torch.is_grad_enabled():
            plain = _chunk_linear_attention_plain
            pull = torch.func.vjp(
                lambda *given: plain(*given, **flags, columns=ctx.columns), q, k, v, decay, start
            )[1]
            return *pull((d_o, d_final)), *[None] * 5
        chunks, adjoint = _chunk_linear_attention_chunks, _chunk_linear_attention_adjoint
        if ctx.columns:
            chunks, adjoint = chunk_column_attention, chunk_column_attention_adjoint
        lanes, parts = segments(q, ctx.size)
        found = [x.new_empty(x.shape) for x in (q, k, v, decay, start)]
        each = len(kept) // (len(lanes) * len(parts))
        for b, h in reversed(lanes):
            d_state = d_final[b, h]
            for n in range(len(parts) - 1, -1, -1):
                here = b, parts[n], h
                saved: Sequence[Tensor] = [kept.pop() for _ in range(each)][::-1]
                if not saved:
                    part = q[here], k[here], v[here], decay[here]
                    _, saved = chunks(*part, starts[n, b, h], torch.empty_like(part[2]), **flags, keep=True)
                d_state = adjoint(d_o[here], d_state, saved, [x[here] for x in found[:4]], **flags)
            found[4][b, h] = d_state
        return *found, *[None] * 5

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """The mapped axis joins the batch; what is saved stays as the enlarged batch has it."""
        merged = [
            (x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
            for x, dim in zip(inputs[:5], in_dims[:5], strict=True)
        ]
        o, final, *saved = _ChunkLinearAttention.apply(*merged, *inputs[5:])  # type: ignore[no-untyped-call]
        lead = (info.batch_size, -1)
        return (o.unflatten(0, lead), final.unflatten(0, lead), *saved), (0, 0, *[None] * len(saved))


def _chunk_linear_attention_chunks(
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
    """Write o [B, T, H, V]; the final state [B, H, K, V], and what the adjoint wants if it is to be kept."""
    batch, _, heads, width = q.shape
    dtype = start.dtype
    split = to_chunks if decay.shape[-1] == 1 else to_rows
    q_chunks, k_chunks = split(q, size, 0, dtype).mul_(scale), split(k, size, 0, dtype)
    decays = split(decay, size, 0.0 if log else 1.0, dtype)
    values = to_chunks(v, size, 0, dtype)
    count = values.shape[0]
    kept: tuple[Tensor, ...] = ()
    if decay.shape[-1] == 1:
        flat = q_chunks.flatten(0, 2), k_chunks.flatten(0, 2), decays.flatten(0, 2).squeeze(-1)
        weights, reads, writes, total, kept = shared_factors(*flat, log=log, keep=keep)
        log_total = decays.sum(3) if log else None
    else:
        log_total = None
        if log:
            kept = (decays.sum(0).flatten(0, 2),)
            log_total = kept[0].sum(1)
            decays.exp_()
        rows = q_chunks.flatten(1, 3), k_chunks.flatten(1, 3), decays.flatten(1, 3)
        weights, reads, writes, total = decayed_factors(*rows, *kept)
    v_flat = values.flatten(0, 2)
    states = v.new_empty(count + 1, batch * heads, width, v.shape[-1], dtype=dtype)
    states[0] = start.flatten(0, 1)
    torch.bmm(writes.mT, v_flat, out=states[1:].flatten(0, 1))
    lead = count, batch * heads, -1, 1
    chunk_states(states, total.view(lead), None if log_total is None else log_total.view(lead))
    from_chunks(torch.bmm(weights, v_flat).baddbmm_(reads, states[:-1].flatten(0, 1)).view(values.shape), o)
    final = states[-1].view(batch, heads, width, -1).clone()
    if not keep:
        return final, ()
    # Of a shared decay, products and spans give the factors back for less than it takes to fetch them from memory.
    factors = () if decay.shape[-1] == 1 else (weights, reads, writes)
    return final, (q_chunks, k_chunks, values, decays, total, states, *factors, *kept)


def _chunk_linear_attention_adjoint(
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
    q_chunks, k_chunks, values, decays, total, states, *kept = saved
    count, batch, heads = values.shape[:3]
    shared = decays.dim() == values.dim()
    if shared:
        products, spans, prefix = kept
        weights, reads = products * spans, q_chunks.flatten(0, 2) * prefix
        writes = k_chunks.flatten(0, 2) * spans[:, -1].unsqueeze(-1)
    else:
        weights, reads, writes, *kept = kept
    d_out = to_chunks(d_o, size, 0, states.dtype).flatten(0, 2)
    d_states = torch.empty_like(states)
    torch.bmm(reads.mT, d_out, out=d_states[:-1].flatten(0, 1))
    d_states[-1] = d_final.flatten(0, 1)
    chunk_states_adjoint(d_states, total.view(count, batch * heads, -1, 1))
    entering, d_leaving = states[:-1].flatten(0, 1), d_states[1:].flatten(0, 1)
    v_flat = values.flatten(0, 2)
    d_v = torch.bmm(weights.mT, d_out).baddbmm_(writes, d_leaving)
    from_chunks(d_v.view(values.shape), found[2])
    d_weights = torch.bmm(d_out, v_flat.mT)
    d_reads = torch.bmm(d_out, entering.mT)
    d_writes = torch.bmm(v_flat, d_leaving.mT)
    d_total = d_leaving.mul_(entering).sum(-1)
    given = d_weights, d_reads, d_writes, d_total
    if shared:
        d_q, d_k, d_a = shared_factors_adjoint(q_chunks.flatten(0, 2), k_chunks.flatten(0, 2), tuple(kept), *given)
    else:
        rows = q_chunks.flatten(1, 3), k_chunks.flatten(1, 3), decays.flatten(1, 3)
        d_q, d_k, d_a = decayed_factors_adjoint(*rows, *given, *kept)
    d_a = d_a.view(decays.shape)
    if log:
        d_a.mul_(decays.exp() if shared else decays)
    join = from_chunks if shared else from_rows
    for d, like, into in ((d_q.mul_(scale), q_chunks, found[0]), (d_k, k_chunks, found[1]), (d_a, decays, found[3])):
        join(d.view(like.shape), into)
    return d_states[0].view(d_final.shape)


def _chunk_linear_attention_plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    start: Tensor,
    *,
    log: bool,
    size: int,
    scale: float,
    columns: bool = False,
) -> tuple[Tensor, Tensor]:
    """The same in operations that can be traced, mapped and differentiated any number of times."""
    q, k, v, decay = (x.to(start.dtype) for x in (q * scale, k, v, decay))
    batch, time, heads, width = q.shape
    count = (time + 2 * size - 1) // size  # one more than needed: a size of 1 would be built into an exported graph
    at = torch.arange(count, device=q.device)[:, None] * size + torch.arange(size, device=q.device)
    at = at.clamp(max=time)
    q, k, v, decay = (
        torch.cat([x, torch.full_like(x[:, :1], fill)], 1)[:, at].transpose(2, 3).contiguous().flatten(0, 2)
        for x, fill in ((q, 0.0), (k, 0.0), (v, 0.0), (decay, 0.0 if log else 1.0))
    )
    prefix, suffix = prefix_products(decay, log=log), suffix_products(decay, log=log)
    total = decay.sum(1) if log else prefix[:, -1]
    if columns:
        inside = decay_apply(torch.bmm(q, k.mT).tril(), v, decay, log=log)
        reads, writes = q, torch.bmm(k.mT, v * suffix)
    else:
        inside = torch.bmm(decay_gram(q, k, decay, log=log), v)
        reads, writes = q * prefix, torch.bmm((k * suffix).mT, v)
    # Chunks are steps of the same recurrence, few enough for the products between all of them: start is step 0.
    total = total.view(batch, count, heads, decay.shape[-1])
    unit = torch.full_like(total[:, :1], 0.0 if log else 1.0)
    spans = segment_products(torch.cat([unit, total], 1).movedim(1, -1), log=log)  # [B, H, 1 or K or V, N+1, N+1]
    steps = torch.cat([start.unsqueeze(1), writes.view(batch, count, heads, width, v.shape[-1])], 1)
    along = "bhvij,bjhkv->bihkv" if columns else "bhkij,bjhkv->bihkv"
    states = torch.einsum(along, spans.expand(-1, -1, steps.shape[4 if columns else 3], -1, -1), steps)
    across = torch.bmm(reads, states[:, :-1].contiguous().flatten(0, 2))
    o = inside + (across * prefix if columns else across)
    o = o.view(batch, count, heads, size, v.shape[-1]).transpose(2, 3).contiguous().flatten(1, 2)
    return o[:, torch.arange(time, device=o.device)], states[:, -1]


def chunk_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None = None,
    start: Tensor | None = None,
    *,
    log: bool = True,
    strict: bool = False,
    columns: bool = False,
    chunk: int = 64,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """S[t] = a[t] S[t-1] + k[t] v[t]^T; o[t] = scale q[t]^T S[t], or strictly scale q[t]^T S[t-1]; final = S[T-1].

    Shapes:  q, k [B, T, H, K], v [B, T, H, V], decay [B, T, H, 1] (all channels), [B, T, H, K] (rows of S), with
             `columns` [B, T, H, V] (columns of S), or None for 1; each axis may be 1; start [B, H, K, V] or None
             -> o [B, T, H, V], final [B, H, K, V], both float32 for 16 bits. `chunk` is a power of two, at least 8
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf)
    """
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), torch.promote_types(v.dtype, torch.float32))
    if decay is not None:
        dtype = torch.promote_types(dtype, decay.dtype)
    if start is not None:
        dtype = torch.promote_types(dtype, start.dtype)
    if decay is None:
        decay = torch.full((1, 1, 1, 1), 0.0 if log else 1.0, dtype=dtype, device=q.device)
    if start is None:
        start = torch.zeros((1, 1, 1, 1), dtype=dtype, device=q.device)
    lead = (x.shape[:3] for x in (q, k, v, decay))
    batch, time, heads = torch.broadcast_shapes(*lead, (start.shape[0], 1, start.shape[1]))
    (width,) = torch.broadcast_shapes(q.shape[-1:], k.shape[-1:])
    q, k = q.expand(batch, time, heads, width), k.expand(batch, time, heads, width)
    v, decay = v.expand(batch, time, heads, v.shape[-1]), decay.expand(batch, time, heads, decay.shape[-1])
    start = start.to(dtype).expand(batch, heads, width, v.shape[-1])
    if strict:
        # A read before the step is a read after the step before it.
        first = q[:, :1].to(dtype)
        q = torch.cat([q[:, 1:], torch.zeros_like(q[:, :1])], 1)
    columns = columns and decay.shape[-1] > 1
    traced = torch.compiler.is_compiling() or dtype.is_complex
    size = chunk if traced else min(chunk, max(8, 1 << max(time - 1, 0).bit_length()))
    if not traced and decay.shape[-1] == 1 and width * v.shape[-1] <= 64 * 64 and q.device.type == "cpu":
        size = min(size, 32)  # what the weights then save is more than what twice as many states of this size cost
    if 0 in (batch, time, heads, width, v.shape[-1]):
        o, final = q.to(dtype) @ k.mT.to(dtype) @ v.to(dtype) + zero_of(decay), start + zero_of(k)
    elif traced:
        o, final = _chunk_linear_attention_plain(q, k, v, decay, start, log=log, size=size, scale=scale, columns=columns)
    else:
        given = q, k, v, decay, start, log, size, columns, scale, is_kept(q, k, v, decay, start)
        o, final = _ChunkLinearAttention.apply(*given)[:2]  # type: ignore[no-untyped-call]
    if strict:
        before = torch.einsum("bthk,bhkv->bthv", first * scale, start)
        o = torch.cat([before, o[:, :-1]], 1)[:, :time] if time else o
    return o, final
