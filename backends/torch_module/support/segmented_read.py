"""Reads of a state whose decay varies along rows and columns at once: in segments of time, the states never kept."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .zero_of import zero_of


class _SegmentedRead(torch.autograd.Function):
    """o[t] = sum over rows of q[t] S[t], S[t] = a[t] S[t-1] + k[t] v[t]; keeps the state at the segments' starts only.

    The decay is x, or the product of x and y, or the exponential of that: it is formed for one segment at a time, in
    memory that all segments share. Backward rebuilds a segment's states, runs dS[t] = q[t] do[t] + a[t+1] dS[t+1]
    through it, and forms all gradients of the segment in bulk.
    """

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, x: Tensor, y: Tensor | None, start: Tensor, log: bool, size: int
    ) -> tuple[Tensor, ...]:
        out = v.new_empty(v.shape)
        decays, states = (_SegmentRows(start, min(size, len(v))) for _ in range(2))
        times = _segmented_read_times(x, y, log)
        state, starts = start, []
        for first in range(0, v.shape[0], size):
            part = slice(first, first + size)
            starts.append(state)
            _segmented_read_decay(x, times, part, log, decays.whole[: len(v[part])])
            found = _segmented_read_states(k[part], v[part], decays, state, states)
            torch.matmul(q[part].unsqueeze(-2), found, out=out[part].unsqueeze(-2))
            state = found[-1].clone()
        return out, state, torch.stack(starts) if starts else start.new_empty(0, *start.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *given, ctx.log, ctx.size = inputs
        ctx.save_for_backward(*given, output[2])
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, x, y, start, starts = ctx.saved_tensors
        d_out, d_state = grads[0].contiguous(), grads[1]  # products with expanded ones are slow
        if torch.is_grad_enabled():
            log, given = ctx.log, [t for t in (q, k, v, x, y, start) if t is not None]
            pull = torch.func.vjp(
                lambda q, k, v, *rest: _segmented_read_plain(q, k, v, _segmented_read_whole(rest[:-1], log), rest[-1]), *given
            )[1]
            pulled = pull((d_out, d_state))
            return *pulled[:4], None if y is None else pulled[4], pulled[-1], None, None
        d_q, d_k, d_v = (torch.empty_like(t) for t in (q, k, v))
        d_factors = [None if f is None else torch.zeros_like(f) for f in (x, y)]
        decays, states, d_states = (_SegmentRows(start, min(ctx.size, len(v))) for _ in range(3))
        times = _segmented_read_times(x, y, ctx.log)
        for n in range(starts.shape[0] - 1, -1, -1):
            part = slice(n * ctx.size, (n + 1) * ctx.size)
            count = len(v[part])
            a = _segmented_read_decay(x, times, part, ctx.log, decays.whole[:count])
            found = _segmented_read_states(k[part], v[part], decays, starts[n], states)
            d_found = torch.mul(q[part].unsqueeze(-1), d_out[part].unsqueeze(-2), out=d_states.whole[:count])
            last = d_states.rows[count - 1].add_(d_state)
            for row, decay in zip(d_states.rows[count - 2 :: -1] if count > 1 else (), decays.rows[count - 1 :: -1], strict=False):
                last = row.addcmul_(decay, last)
            torch.mul(decays.rows[0], last, out=(d_state := torch.empty_like(last)))
            torch.matmul(d_out[part].unsqueeze(-2), found.mT, out=d_q[part].unsqueeze(-2))
            torch.matmul(v[part].unsqueeze(-2), d_found.mT, out=d_k[part].unsqueeze(-2))
            torch.matmul(k[part].unsqueeze(-2), d_found, out=d_v[part].unsqueeze(-2))
            if ctx.log:
                d_found.mul_(a)  # and so the gradient of the logarithm
            d_found[1:].mul_(found[:-1])
            d_found[0].mul_(starts[n])
            for d_factor, own, other in zip(d_factors, (x, y), (y, x), strict=True):
                if d_factor is not None:
                    here = d_factor[part] if len(d_factor) > 1 else d_factor
                    product = d_found if other is None else torch.mul(d_found, _segment(other, part), out=decays.whole[:count])
                    here += product.sum_to_size(_segment(own, part).shape)
        return d_q, d_k, d_v, *d_factors, d_state, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """The mapped axis joins the lanes: dimension 1, or 0 of the states."""
        merged: list[Tensor | None] = []
        for x, dim, lane in zip(inputs[:6], in_dims[:6], (1, 1, 1, 1, 1, 0), strict=True):
            if x is None:
                merged.append(None)
                continue
            wide = x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            merged.append(wide.movedim(0, lane).flatten(lane, lane + 1))
        out, state, starts = _SegmentedRead.apply(*merged, *inputs[6:])  # type: ignore[no-untyped-call]
        lanes = (info.batch_size, out.shape[1] // info.batch_size)
        return (out.unflatten(1, lanes), state.unflatten(0, lanes), starts.unflatten(1, lanes)), (1, 0, 1)


class _SegmentRows:
    """Memory for one number at each entry of the states of a segment, which all segments share; and its rows."""

    def __init__(self, state: Tensor, size: int) -> None:
        self.whole = state.new_empty(size, *state.shape)
        self.rows = self.whole.unbind(0)


def _segment(x: Tensor, part: slice) -> Tensor:
    """The rows of a segment; of what is the same at all times, its one row."""
    return x[part] if len(x) > 1 else x


def _segmented_read_times(x: Tensor, y: Tensor | None, log: bool) -> Tensor:
    """What x is multiplied by: to the decay, or to its logarithm to the base 2, whose power takes torch a third of the time
    of that of e."""
    times = x.new_ones(1, 1, 1, 1) if y is None else y
    return times / math.log(2) if log else times


def _segmented_read_decay(x: Tensor, times: Tensor, part: slice, log: bool, out: Tensor) -> Tensor:
    """The decays of one segment: [C, M, K, V]."""
    torch.mul(_segment(x, part).expand(out.shape), _segment(times, part), out=out)
    return out.exp2_() if log else out


def _segmented_read_whole(factors: Sequence[Tensor], log: bool) -> Tensor:
    """The decays at all times."""
    whole = factors[0] if len(factors) == 1 else factors[0] * factors[1]
    return whole.exp() if log else whole


def _segmented_read_states(k: Tensor, v: Tensor, a: _SegmentRows, start: Tensor, states: _SegmentRows) -> Tensor:
    """The states of one segment: k [C, M, K], v [C, M, V], a at least C rows, start [M, K, V] -> [C, M, K, V]."""
    found = torch.mul(k.unsqueeze(-1), v.unsqueeze(-2), out=states.whole[: len(k)])
    before = start
    for row, step in zip(states.rows[: len(k)], a.rows, strict=False):
        before = row.addcmul_(step, before)
    return found


def _segmented_read_plain(q: Tensor, k: Tensor, v: Tensor, a: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """The same without in-place writes: for torch.compile, torch.export, complex numbers, and second derivatives."""
    state, out = start, []
    a = a.expand(len(q), *a.shape[1:])
    for q_t, k_t, v_t, a_t in zip(q.unbind(0), k.unbind(0), v.unbind(0), a.unbind(0), strict=True):
        state = a_t * state + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        out.append((q_t.unsqueeze(-1) * state).sum(-2))
    return (torch.stack(out) if out else v + zero_of(q)), state


def segmented_read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    start: Tensor | None = None,
    *,
    log: bool = True,
    strict: bool = False,
    size: int | None = None,
    times: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S[t] = a[t] S[t-1] + k[t] v[t]^T entry by entry; o[t] = q[t]^T S[t], strictly q[t]^T S[t-1]; final = S[T-1].

    Shapes:  q, k [B, T, H, K], v [B, T, H, V], decay and times [B, T, H, K, V], start [B, H, K, V] or None; axes may be
             1 -> o [B, T, H, V], final [B, H, K, V], float32 for 16 bits
    Units:   a = exp(decay * times) if log, else a = decay * times; `times` is 1 if None, and a product that is wider than
             both is formed for one segment at a time
    """
    factors = [decay] if times is None else [decay, times]
    dtype = torch.float32
    for x in (q, k, v, *factors, *(() if start is None else (start,))):
        dtype = torch.promote_types(dtype, x.dtype)
    lead = torch.broadcast_shapes(*(x.shape[:3] for x in (q, k, v, *factors)))
    batch, time, heads = lead
    (rows,) = torch.broadcast_shapes(q.shape[-1:], k.shape[-1:], *(x.shape[-2:-1] for x in factors))
    (columns,) = torch.broadcast_shapes(v.shape[-1:], *(x.shape[-1:] for x in factors))
    q, k = (x.to(dtype).expand(*lead, rows).transpose(0, 1).reshape(time, batch * heads, rows) for x in (q, k))
    v = v.to(dtype).expand(*lead, columns).transpose(0, 1).reshape(time, batch * heads, columns)
    factors = [
        x.to(dtype).expand(batch, -1, heads, -1, -1).transpose(0, 1).reshape(x.shape[1], batch * heads, *x.shape[3:])
        for x in factors
    ]
    if start is None:
        start = q.new_zeros(1, 1, 1, 1)
    state = start.to(dtype).expand(batch, heads, rows, columns).reshape(batch * heads, rows, columns)
    if size is None:  # about as many numbers as stay in the cache
        size = min(max(64, 2**19 // max(1, state.numel())), 512)
    if strict:  # a read before the step is a read after the step before it
        first = q[:1]
        q = torch.cat([q[1:], torch.zeros_like(first)])
    if torch.compiler.is_compiling() or dtype.is_complex or time == 0:
        o, final = _segmented_read_plain(q, k, v, _segmented_read_whole(factors, log), state)
    else:
        y = factors[1] if len(factors) > 1 else None
        o, final = _SegmentedRead.apply(q, k, v, factors[0], y, state, log, size)[:2]  # type: ignore[no-untyped-call]
    if strict and time:
        o = torch.cat([(first.unsqueeze(-1) * state).sum(-2), o[:-1]])
    return (
        o.reshape(time, batch, heads, columns).transpose(0, 1),
        final.reshape(batch, heads, rows, columns),
    )
