"""Reads of a state whose decay varies along rows and columns at once: in segments of time, the states never kept."""

from typing import Any

import torch
from torch import Tensor


class _SegmentedRead(torch.autograd.Function):
    """o[t] = sum over rows of q[t] S[t], S[t] = a[t] S[t-1] + k[t] v[t]; keeps the state at the segments' starts only.

    Backward rebuilds a segment's states, runs dS[t] = q[t] do[t] + a[t+1] dS[t+1] through it, and forms all gradients of
    the segment in bulk.
    """

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, decay: Tensor, start: Tensor, log: bool, size: int
    ) -> tuple[Tensor, ...]:
        out = v.new_empty(v.shape)
        state, starts = start, []
        for first in range(0, v.shape[0], size):
            part = slice(first, first + size)
            starts.append(state)
            states = _segmented_read_states(k[part], v[part], _segmented_read_decay(decay[part], log), state)
            torch.matmul(q[part].unsqueeze(-2), states, out=out[part].unsqueeze(-2))
            state = states[-1].clone()
        return out, state, torch.stack(starts) if starts else start.new_empty(0, *start.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        q, k, v, decay, start, ctx.log, ctx.size = inputs
        ctx.save_for_backward(q, k, v, decay, start, output[2])
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, decay, start, starts = ctx.saved_tensors
        d_out, d_state = grads[0], grads[1]
        if torch.is_grad_enabled():
            log = ctx.log
            pull = torch.func.vjp(
                lambda q, k, v, decay, start: _segmented_read_plain(q, k, v, _segmented_read_decay(decay, log), start),
                *(q, k, v, decay, start),
            )[1]
            return *pull((d_out, d_state)), None, None
        d_q, d_k, d_v, d_decay = (torch.empty_like(x) for x in (q, k, v, decay))
        for n in range(starts.shape[0] - 1, -1, -1):
            part = slice(n * ctx.size, (n + 1) * ctx.size)
            a = _segmented_read_decay(decay[part], ctx.log)
            states = _segmented_read_states(k[part], v[part], a, starts[n])
            d_states = q[part].unsqueeze(-1) * d_out[part].unsqueeze(-2)
            rows, decays = d_states.unbind(0), a.unbind(0)
            carried = d_state
            for i in range(len(rows) - 1, -1, -1):
                rows[i].add_(carried)
                carried = decays[i] * rows[i]
            d_state = carried
            d_q[part] = torch.matmul(states, d_out[part].unsqueeze(-1)).squeeze(-1)
            d_k[part] = torch.matmul(d_states, v[part].unsqueeze(-1)).squeeze(-1)
            d_v[part] = torch.matmul(k[part].unsqueeze(-2), d_states).squeeze(-2)
            torch.mul(d_states[1:], states[:-1], out=d_decay[part][1:])
            torch.mul(d_states[0], starts[n], out=d_decay[part][0])
            if ctx.log:
                d_decay[part] *= a
        return d_q, d_k, d_v, d_decay, d_state, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """The mapped axis joins the lanes: dimension 1, or 0 of the states."""
        merged = []
        for x, dim, lane in zip(inputs[:5], in_dims[:5], (1, 1, 1, 1, 0), strict=True):
            wide = x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            merged.append(wide.movedim(0, lane).flatten(lane, lane + 1))
        out, state, starts = _SegmentedRead.apply(*merged, *inputs[5:])  # type: ignore[no-untyped-call]
        lanes = (info.batch_size, out.shape[1] // info.batch_size)
        return (out.unflatten(1, lanes), state.unflatten(0, lanes), starts.unflatten(1, lanes)), (1, 0, 1)


def _segmented_read_decay(decay: Tensor, log: bool) -> Tensor:
    return decay.exp() if log else decay


def _segmented_read_states(k: Tensor, v: Tensor, a: Tensor, start: Tensor) -> Tensor:
    """The states of one segment: k [C, M, K], v [C, M, V], a [C, M, K, V], start [M, K, V] -> [C, M, K, V]."""
    states = k.unsqueeze(-1) * v.unsqueeze(-2)
    before = start
    for row, step in zip(states.unbind(0), a.unbind(0), strict=True):
        row.addcmul_(step, before)
        before = row
    return states


def _segmented_read_plain(q: Tensor, k: Tensor, v: Tensor, a: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """The same without in-place writes: for torch.compile, torch.export, complex numbers, and second derivatives."""
    state, out = start, []
    for q_t, k_t, v_t, a_t in zip(q.unbind(0), k.unbind(0), v.unbind(0), a.unbind(0), strict=True):
        state = a_t * state + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        out.append((q_t.unsqueeze(-1) * state).sum(-2))
    return (torch.stack(out) if out else v + q.sum() * 0), state


def segmented_read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    start: Tensor | None = None,
    *,
    log: bool = True,
    strict: bool = False,
    size: int = 64,
) -> tuple[Tensor, Tensor]:
    """S[t] = a[t] S[t-1] + k[t] v[t]^T entry by entry; o[t] = q[t]^T S[t], strictly q[t]^T S[t-1]; final = S[T-1].

    Shapes:  q, k [B, T, H, K], v [B, T, H, V], decay [B, T, H, K, V], start [B, H, K, V] or None; axes may be 1
             -> o [B, T, H, V], final [B, H, K, V], float32 for 16 bits
    Units:   a = exp(decay) if log, else a = decay
    """
    dtype = torch.float32
    for x in (q, k, v, decay, *(() if start is None else (start,))):
        dtype = torch.promote_types(dtype, x.dtype)
    lead = torch.broadcast_shapes(q.shape[:3], k.shape[:3], v.shape[:3], decay.shape[:3])
    batch, time, heads = lead
    rows = max(q.shape[-1], k.shape[-1], decay.shape[-2])
    columns = max(v.shape[-1], decay.shape[-1])
    q, k = (x.to(dtype).expand(*lead, rows).transpose(0, 1).reshape(time, batch * heads, rows) for x in (q, k))
    v = v.to(dtype).expand(*lead, columns).transpose(0, 1).reshape(time, batch * heads, columns)
    a = decay.to(dtype).expand(*lead, rows, columns).transpose(0, 1).reshape(time, batch * heads, rows, columns)
    if start is None:
        start = q.new_zeros(1, 1, 1, 1)
    state = start.to(dtype).expand(batch, heads, rows, columns).reshape(batch * heads, rows, columns)
    if strict:  # a read before the step is a read after the step before it
        first = q[:1]
        q = torch.cat([q[1:], torch.zeros_like(first)])
    if torch.compiler.is_compiling() or dtype.is_complex or time == 0:
        o, final = _segmented_read_plain(q, k, v, _segmented_read_decay(a, log), state)
    else:
        o, final = _SegmentedRead.apply(q, k, v, a, state, log, size)[:2]  # type: ignore[no-untyped-call]
    if strict and time:
        o = torch.cat([(first.unsqueeze(-1) * state).sum(-2), o[:-1]])
    return (
        o.reshape(time, batch, heads, columns).transpose(0, 1),
        final.reshape(batch, heads, rows, columns),
    )
