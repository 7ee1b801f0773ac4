"""Feedback through a decaying state and reads of the same state, chunk by chunk: one pass over the states for both."""

from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .chunk_linear_attention import chunk_linear_attention
from .chunk_solve import chunk_solve
from .feedback_factors import feedback_factors, feedback_factors_adjoint
from .from_chunks import from_chunks
from .segments import is_kept, segments
from .to_chunks import to_chunks
from .unit_inverse import unit_inverse


class _ChunkSolveRead(torch.autograd.Function):
    """Inside a chunk (I - G) y = x + W S and o = A y + Q S, with S the state that enters it; S' = total S + U^T y.

    The adjoint runs one recurrence too: dS = total dS' + W^T r + Q^T do, with r = (I - G)^-T (dy + A^T do + U dS'). It
    keeps what _ChunkLinearAttention keeps.
    """

    @staticmethod
    def forward(
        w: Tensor,
        u: Tensor,
        x: Tensor,
        q: Tensor,
        decay: Tensor,
        start: Tensor,
        log: bool,
        after: bool,
        size: int,
        keep: bool,
    ) -> tuple[Tensor, ...]:
        lanes, parts = segments(w, size)
        o, y = (x.new_empty(x.shape, dtype=start.dtype) for _ in range(2))
        starts, final = start.new_empty(len(parts), *start.shape), start.new_empty(start.shape)
        saved: list[Tensor] = []
        for b, h in lanes:
            state = start[b, h]
            for n, t in enumerate(parts):
                starts[n, b, h] = state
                part = [g[b, t, h] for g in (w, u, x, q, decay)]
                reads, rows, states, *rest = _chunk_solve_read_segment(
                    part, state, log=log, after=after, size=size, keep=keep
                )
                from_chunks(reads, o[b, t, h])
                from_chunks(rows, y[b, t, h])
                saved += [rows, states, *rest] if keep else []
                state = states[-1].view(state.shape)
            final[b, h] = state
        return o, final, y, starts, *saved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *given, ctx.log, ctx.after, ctx.size, _ = inputs
        ctx.mark_non_differentiable(*output[3:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *output[3:])

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        w, u, x, q, decay, start, starts, *kept = ctx.saved_tensors
        given = w, u, x, q, decay, start
        flags = {"log": ctx.log, "after": ctx.after, "size": ctx.size}
        d_o = torch.zeros_like(x, dtype=start.dtype) if grads[0] is None else grads[0]
        d_final = torch.zeros_like(start) if grads[1] is None else grads[1]
        if torch.is_grad_enabled():
            pull = torch.func.vjp(lambda *given: _chunk_solve_read_plain(*given, **flags), *given)[1]
            return *pull((d_o, d_final, torch.zeros_like(d_o) if grads[2] is None else grads[2])), *[None] * 4
        found = [g.new_empty(g.shape) for g in given]
        lanes, parts = segments(w, ctx.size)
        each = len(kept) // (len(lanes) * len(parts))
        for b, h in reversed(lanes):
            d_state = d_final[b, h]
            for n in range(len(parts) - 1, -1, -1):
                here = b, parts[n], h
                saved = [kept.pop() for _ in range(each)][::-1]
                if not saved:
                    part = [g[here] for g in given[:5]]
                    _, *saved = _chunk_solve_read_segment(part, starts[n, b, h], **flags, keep=True)
                given_here = d_o[here], d_state, None if grads[2] is None else grads[2][here]
                *d_part, d_state = _chunk_solve_read_adjoint(*given_here, *saved, **flags)
                for whole, chunks in zip(found[:5], d_part, strict=True):
                    from_chunks(chunks, whole[here])
            found[5][b, h] = d_state
        return *found, *[None] * 4

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """The mapped axis joins the batch; what is saved stays as the enlarged batch has it."""
        merged = [
            (x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
            for x, dim in zip(inputs[:6], in_dims[:6], strict=True)
        ]
        found = _ChunkSolveRead.apply(*merged, *inputs[6:])  # type: ignore[no-untyped-call]
        results = [x.unflatten(0, (info.batch_size, -1)) for x in found[:3]]
        return (*results, *found[3:]), (0, 0, 0, *[None] * len(found[3:]))


def _chunk_solve_read_segment(
    part: list[Tensor], start: Tensor, *, log: bool, after: bool, size: int, keep: bool
) -> list[Tensor]:
    """o and y [N, B, H, C, V], the states between the chunks [N+1, B H, K, V], and what else the adjoint wants if it is
    to be kept."""
    batch, heads, width, columns = start.shape
    count = -(-part[0].shape[1] // size)
    alone, answers, weights, reads, writes, total, saved = _chunk_solve_read_solved(
        part, start.dtype, log=log, after=after, size=size, keep=keep
    )
    step = torch.bmm(writes.mT, answers)
    step.diagonal(dim1=1, dim2=2).add_(total)
    states = start.new_empty(count + 1, batch * heads, width, columns)
    states[0] = start.flatten(0, 1)
    torch.bmm(writes.mT, alone, out=states[1:].flatten(0, 1))
    steps = step.unflatten(0, (count, -1)).unbind(0)
    for one, entering, following in zip(steps, states[:-1].unbind(0), states[1:].unbind(0), strict=True):
        following.baddbmm_(one, entering)
    before = states[:-1].flatten(0, 1)
    y = alone.baddbmm_(answers, before)
    o = torch.bmm(weights, y).baddbmm_(reads, before)
    shape = count, batch, heads, size, columns
    return [o.view(shape), y.view(shape), states, *([answers, weights, reads, writes, step, *saved] if keep else [])]


def _chunk_solve_read_solved(
    part: list[Tensor], dtype: torch.dtype, *, log: bool, after: bool, size: int, keep: bool
) -> tuple[Any, ...]:
    """y where no state enters, what it adds for each row of the state, the factors of the reads and writes, and what the
    adjoint wants; what only leads to them is given back here."""
    left, right, given, reader = (to_chunks(g, size, 0, dtype).flatten(0, 2) for g in part[:4])
    decays = to_chunks(part[4], size, 0.0 if log else 1.0, dtype).flatten(0, 2)
    pairs, weights, leads, reads, writes, total, *kept = feedback_factors(
        left, reader, right, decays, log=log, after=after, keep=keep
    )
    inverse = unit_inverse(pairs.neg_())
    alone, answers = torch.bmm(inverse, given), torch.bmm(inverse, leads)
    saved = [left, right, reader, decays, inverse, *kept] if keep else []
    return alone, answers, weights, reads, writes, total, saved


def _chunk_solve_read_adjoint(
    d_o: Tensor,
    d_final: Tensor,
    d_y: Tensor | None,
    y: Tensor,
    states: Tensor,
    *saved: Tensor,
    log: bool,
    after: bool,
    size: int,
) -> tuple[Tensor, ...]:
    """Gradients of w, u, x, q, decay in chunks, and of the start. With the r of the class: dx = r, dG = r y^T."""
    answers, weights, reads, writes, step, left, right, reader, decays, inverse, *kept = saved
    dtype, lead, solved = states.dtype, y.shape[:3], y.flatten(0, 2)
    d_out = to_chunks(d_o, size, 0, dtype).flatten(0, 2)
    given = torch.bmm(weights.mT, d_out)
    if d_y is not None:
        given += to_chunks(d_y, size, 0, dtype).flatten(0, 2)
    d_states = torch.empty_like(states)
    torch.bmm(answers.mT, given, out=d_states[:-1].flatten(0, 1)).baddbmm_(reads.mT, d_out)
    d_states[-1] = d_final.flatten(0, 1)
    steps = step.unflatten(0, (lead[0], -1)).unbind(0)
    pairs = zip(steps, d_states[1:].unbind(0), d_states[:-1].unbind(0), strict=True)
    for one, later, earlier in reversed(list(pairs)):
        earlier.baddbmm_(one.mT, later)
    entering, d_leaving = states[:-1].flatten(0, 1), d_states[1:].flatten(0, 1)
    d_x = torch.bmm(inverse.mT, given.baddbmm_(writes, d_leaving))
    d_pairs, d_weights = torch.bmm(d_x, solved.mT), torch.bmm(d_out, solved.mT)
    d_leads, d_reads = torch.bmm(d_x, entering.mT), torch.bmm(d_out, entering.mT)
    d_given = [d_pairs, d_weights, d_leads, d_reads, torch.bmm(solved, d_leaving.mT), d_leaving.mul_(entering).sum(-1)]
    d_w, d_q, d_u, d_decay = feedback_factors_adjoint(left, reader, right, decays, kept, d_given, log=log, after=after)
    chunks = (d.unflatten(0, lead) for d in (d_w, d_u, d_x, d_q, d_decay))
    return *chunks, d_states[0].view(d_final.shape)


def _chunk_solve_read_plain(
    w: Tensor, u: Tensor, x: Tensor, q: Tensor, decay: Tensor, start: Tensor, *, log: bool, after: bool, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The same as two passes, in operations that can be traced, mapped and differentiated any number of times."""
    y = chunk_solve(w[:, :, :, None], u[:, :, :, None], x[:, :, :, None], decay, start, log=log, after=after, chunk=size)
    o, final = chunk_linear_attention(q, u, y[:, :, :, 0], decay, start, log=log, chunk=size)
    return o, final, y[:, :, :, 0]


def chunk_solve_read(
    w: Tensor,
    u: Tensor,
    x: Tensor,
    q: Tensor,
    decay: Tensor | None = None,
    start: Tensor | None = None,
    *,
    log: bool = True,
    after: bool = False,
    strict: bool = False,
    chunk: int = 64,
) -> tuple[Tensor, Tensor, Tensor]:
    """y[t] = x[t] + w[t] S[t-1] (w[t] a[t] S[t-1] if `after`), S[t] = a[t] S[t-1] + u[t]^T y[t], o[t] = q[t] S[t].

    Strict: o[t] = q[t] S[t-1].

    Shapes:  w, u, q [B, T, H, K], x [B, T, H, V], decay [B, T, H, 1 or K] or None for 1, start [B, H, K, V] or None;
             every axis may be 1 -> o [B, T, H, V], final [B, H, K, V], y [B, T, H, V], all float32 for 16 bits
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf)
    """
    dtype = torch.float32
    for given in (w, u, x, q, *(g for g in (decay, start) if g is not None)):
        dtype = torch.promote_types(dtype, given.dtype)
    if decay is None:
        decay = torch.full((1, 1, 1, 1), 0.0 if log else 1.0, dtype=dtype, device=x.device)
    if start is None:
        start = torch.zeros((1, 1, 1, 1), dtype=dtype, device=x.device)
    batch, time, heads = torch.broadcast_shapes(
        *(g.shape[:3] for g in (w, u, x, q, decay)), (start.shape[0], 1, start.shape[1])
    )
    (width,) = torch.broadcast_shapes(*(g.shape[3:] for g in (w, u, q, decay)), start.shape[2:3])
    (columns,) = torch.broadcast_shapes(x.shape[3:], start.shape[3:])
    w, u, q = (g.expand(batch, time, heads, width) for g in (w, u, q))
    x, decay = x.expand(batch, time, heads, columns), decay.expand(batch, time, heads, decay.shape[3])
    start = start.to(dtype).expand(batch, heads, width, columns)
    if strict:  # a read before the step is a read after the step before it
        first = q[:, :1].to(dtype)
        q = torch.cat([q[:, 1:], torch.zeros_like(q[:, :1])], 1)
    size = min(max(8, chunk), max(8, 1 << max(time - 1, 0).bit_length()))
    if torch.compiler.is_compiling() or dtype.is_complex or 0 in (batch, time, heads, width, columns):
        o, final, y = _chunk_solve_read_plain(w, u, x, q, decay, start, log=log, after=after, size=chunk)
    else:
        inputs = w, u, x, q, decay, start, log, after, size, is_kept(w, u, x, q, decay, start)
        found = _ChunkSolveRead.apply(*inputs)  # type: ignore[no-untyped-call]
        o, final, y = found[:3]
    if strict and time:
        o = torch.cat([torch.einsum("bthk,bhkv->bthv", first, start), o[:, :-1]], 1)
    return o, final, y
