"""All states of a diagonal affine recurrence, in two passes over pieces of the time axis."""

from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward


class _AffineScan(torch.autograd.Function):
    """h[t] = a[t] h[t-1] + b[t], and the decay of each piece, which the adjoint needs again: the same scan, run backwards.

    Saves these, the decays and the states.
    """

    @staticmethod
    def forward(
        a: Tensor, log_a: Tensor | None, b: Tensor, start: Tensor | None, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        h = torch.empty(b.shape, dtype=b.dtype, device=b.device)
        return h, _affine_scan_fill(a, log_a, b, start, h, reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        a, log_a, _, start, ctx.reverse = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(a, log_a, start, *output)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        a, log_a, start, h, totals = ctx.saved_tensors
        if grads[0] is None:
            return (None,) * 5
        d_a: Tensor | None = None
        if torch.is_grad_enabled():
            d_b = _affine_scan_adjoint(a, log_a, grads[0], ctx.reverse)
            d_a = _affine_scan_decay_gradient(d_b, h, start, ctx.reverse)
        else:
            d_b = _affine_scan_adjoint_in_place(a, log_a, totals, grads[0], ctx.reverse)
            if ctx.needs_input_grad[0]:
                d_a = _affine_scan_decay_gradient_in_place(d_b, h, start, ctx.reverse)
        d_start = None
        if start is not None and ctx.needs_input_grad[3]:
            d_start = _affine_scan_step(a, ctx.reverse).conj() * d_b[:, -1 if ctx.reverse else 0]
        return None if d_a is None else d_a.sum_to_size(a.shape), None, d_b, d_start, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        """The mapped axis joins the batch axis."""
        b, b_dim = inputs[2], in_dims[2]
        batch = b.shape[0] if b_dim is None else b.movedim(b_dim, 0).shape[1]
        merged: list[Tensor | None] = []
        for x, dim in zip(inputs[:4], in_dims[:4], strict=True):
            if x is None:
                merged.append(None)
                continue
            x = x.unsqueeze(0) if dim is None else x.movedim(dim, 0)
            merged.append(x.expand(info.batch_size, batch, *x.shape[2:]).flatten(0, 1))
        found = _AffineScan.apply(*merged, inputs[4])  # type: ignore[no-untyped-call]
        return tuple(x.unflatten(0, (info.batch_size, -1)) for x in found), (0, 0)


def _affine_scan_step(a: Tensor, reverse: bool) -> Tensor:
    """The decay of the step that reads `start`: [B, ...]."""
    return a[:, -1] if reverse else a[:, 0]


def _affine_scan_pieces(time: int, reverse: bool) -> tuple[int, slice, range, range]:
    """How many pieces, where they lie, and in the order of the scan: the rows of a piece, the positions after them all."""
    size = 16
    count = time // size if time >= 2 * size else 0
    whole = count * size
    if reverse:
        return count, slice(time - whole, time), range(size - 1, -1, -1), range(time - whole - 1, -1, -1)
    return count, slice(0, whole), range(size), range(whole, time)


def _affine_scan_fill(
    a: Tensor, log_a: Tensor | None, b: Tensor, start: Tensor | None, h: Tensor, reverse: bool
) -> Tensor:
    """Write the states into h [B, T, ...], and give the decay of each piece [B or 1, N, ...], its log where logs are known.

    Pass 1 finds each piece's own end state, the same scan over the pieces carries the states across them, pass 2 writes
    all states. A piece's decay is the exponential of a sum where logs are known: a product of rounded decays near 1 drifts.
    """
    time = b.shape[1]
    count, head, rows, rest = _affine_scan_pieces(time, reverse)
    a = a.expand(-1, time, *a.shape[2:])
    log_a = None if log_a is None else log_a.expand(-1, time, *log_a.shape[2:])
    state, total = start, a[:, :0].clone()
    if count:
        a_rows, b_rows, h_rows = (x[:, head].unflatten(1, (count, len(rows))).unbind(2) for x in (a, b, h))
        first, second, *others = rows
        end = torch.addcmul(b_rows[second], a_rows[second], b_rows[first])
        total = a_rows[first] * a_rows[second] if log_a is None else log_a[:, head].unflatten(1, (count, -1)).sum(2)
        for i in others:
            torch.addcmul(b_rows[i], a_rows[i], end, out=end)
            if log_a is None:
                total.mul_(a_rows[i])
        carries, state = _affine_scan_carry(total, end, state, reverse, log=log_a is not None)
        for i in rows:
            torch.addcmul(b_rows[i], a_rows[i], carries, out=h_rows[i])
            carries = h_rows[i]
    elif log_a is not None:  # a call for each step would add up the same rounding of exp(g) every time
        _affine_scan_slow_rows(log_a, b, state, h, rest)
        return total
    for t in rest:
        h_row = h[:, t]
        if state is None:
            h_row.copy_(b[:, t])
        else:
            torch.addcmul(b[:, t], a[:, t], state, out=h_row)
        state = h_row
    return total


def _affine_scan_slow_rows(log_a: Tensor, b: Tensor, state: Tensor | None, h: Tensor, rows: range) -> None:
    """A few rows, one after another, slow decays as S + expm1(g) S."""
    slow = log_a.abs() < 0.5
    rate, kept = torch.where(slow, log_a.expm1(), log_a.exp()), slow.to(h.dtype)
    for t in rows:
        h_row = h[:, t]
        if state is None:
            h_row.copy_(b[:, t])
        else:
            torch.addcmul(b[:, t], rate[:, t], state, out=h_row)
            h_row.addcmul_(kept[:, t], state)
        state = h_row


def _affine_scan_carry(
    total: Tensor, end: Tensor, start: Tensor | None, reverse: bool, *, log: bool
) -> tuple[Tensor, Tensor]:
    """The state that enters each piece, and the one that leaves them all: total, end [B, N, ...] -> [B, N, ...], [B, ...]."""
    states = end.new_empty(end.shape[0], end.shape[1] + 1, *end.shape[2:])
    entering, leaving, first, last = states[:, :-1], states[:, 1:], states[:, 0], states[:, -1]
    if reverse:
        entering, leaving, first, last = leaving, entering, last, first
    first.zero_() if start is None else first.copy_(start)
    _affine_scan_fill(total.exp() if log else total, total if log else None, end, first, leaving, reverse)
    return entering, last


def _affine_scan_adjoint_in_place(
    a: Tensor, log_a: Tensor | None, totals: Tensor, grad: Tensor, reverse: bool
) -> Tensor:
    """The gradient of b, d_b[t] = grad[t] + a[t+1]* d_b[t+1], over the pieces of the scan, whose decays are known.

    What crosses a piece's boundary is a[t+1]* d_b[t+1], so that a piece reads its own decays only.
    """
    time = grad.shape[1]
    count, head, rows, rest = _affine_scan_pieces(time, reverse)
    d_b = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
    a = a.conj().expand(-1, time, *a.shape[2:])
    if not count:
        early, late = (slice(1, time), slice(0, time - 1)) if reverse else (slice(0, time - 1), slice(1, time))
        last = rest[-1]
        d_b[:, last] = grad[:, last]
        log_late = None if log_a is None else log_a.conj().expand(-1, time, *log_a.shape[2:])[:, late]
        _affine_scan_fill(a[:, late], log_late, grad[:, early], d_b[:, last], d_b[:, early], not reverse)
        return d_b
    entering = None
    for t in reversed(rest):
        row = d_b[:, t]
        row.copy_(grad[:, t]) if entering is None else torch.add(grad[:, t], entering, out=row)
        entering = a[:, t] * row
    a_rows, grad_rows, d_rows = (x[:, head].unflatten(1, (count, len(rows))).unbind(2) for x in (a, grad, d_b))
    backwards = list(zip(rows[-2::-1], rows[:0:-1], strict=True))  # each row, and the one after it
    end = grad_rows[rows[-1]].clone()
    for i, after in backwards:
        torch.addcmul(grad_rows[i], a_rows[after], end, out=end)
    end.mul_(a_rows[rows[0]])
    carries, _ = _affine_scan_carry(totals.conj(), end, entering, not reverse, log=log_a is not None)
    torch.add(grad_rows[rows[-1]], carries, out=d_rows[rows[-1]])
    for i, after in backwards:
        torch.addcmul(grad_rows[i], a_rows[after], d_rows[after], out=d_rows[i])
    return d_b


def _affine_scan_decay_gradient_in_place(d_b: Tensor, h: Tensor, start: Tensor | None, reverse: bool) -> Tensor:
    """The gradient of the decays, d_b[t] h[t-1]*."""
    d_a = torch.empty_like(d_b)
    first, early, late = (-1, slice(1, None), slice(0, -1)) if reverse else (0, slice(0, -1), slice(1, None))
    torch.mul(d_b[:, late], h[:, early].conj(), out=d_a[:, late])
    if start is None:
        d_a[:, first] = 0
    else:
        torch.mul(d_b[:, first], start.conj(), out=d_a[:, first])
    return d_a


def _affine_scan_adjoint(a: Tensor, log_a: Tensor | None, grad: Tensor, reverse: bool) -> Tensor:
    """The gradient of b in operations that can be differentiated again: a scan with the decays of one step later."""
    late = slice(0, -1) if reverse else slice(1, None)
    a = a if a.shape[1] == 1 else a[:, late]
    log_a = log_a if log_a is None or log_a.shape[1] == 1 else log_a[:, late]
    log_a = None if log_a is None else log_a.conj()
    early, seed = (grad[:, 1:], grad[:, 0]) if reverse else (grad[:, :-1], grad[:, -1])
    d_b, _ = _AffineScan.apply(  # type: ignore[no-untyped-call]
        a.conj(), log_a, early, seed, not reverse
    )
    return torch.cat([seed.unsqueeze(1), d_b] if reverse else [d_b, seed.unsqueeze(1)], 1)


def _affine_scan_decay_gradient(d_b: Tensor, h: Tensor, start: Tensor | None, reverse: bool) -> Tensor:
    """The same in operations that can be differentiated again."""
    begin = torch.zeros_like(h[:, :1]) if start is None else start.unsqueeze(1)
    before = torch.cat([h[:, 1:], begin] if reverse else [begin, h[:, :-1]], 1)
    return d_b * before.conj()


def _affine_scan_traced(a: Tensor, b: Tensor, start: Tensor | None, reverse: bool) -> Tensor:
    """The scan as a graph without in-place writes, for torch.compile and torch.export, whatever T is."""
    size = 64
    if reverse:
        a, b = a.flip(1), b.flip(1)
    time = b.shape[1]
    count = (time + 2 * size - 1) // size  # one more than needed: a size of 1 would be built into an exported graph
    pieces = torch.arange(count, device=b.device)[:, None] * size + torch.arange(size, device=b.device)
    pieces = pieces.clamp(max=time)
    a = torch.cat([a.expand(-1, time, *a.shape[2:]), a.new_ones(a.shape[0], 1, *a.shape[2:])], 1)
    b = torch.cat([b, b.new_zeros(b.shape[0], 1, *b.shape[2:])], 1)
    a_rows, b_rows = a[:, pieces].unbind(2), b[:, pieces].unbind(2)
    products, states = [a_rows[0]], [b_rows[0]]
    for a_row, b_row in zip(a_rows[1:], b_rows[1:], strict=True):
        products.append(a_row * products[-1])
        states.append(b_row + a_row * states[-1])
    begin = torch.zeros_like(b[:, :1]) if start is None else start.unsqueeze(1)
    ends = torch.cat([begin, states[-1]], 1)
    totals = torch.cat([torch.ones_like(products[-1][:, :1]), products[-1]], 1)
    at = torch.arange(ends.shape[1], device=b.device)
    later = (at[:, None] > at[None, :]).reshape(1, ends.shape[1], ends.shape[1], *[1] * (b.dim() - 2))
    spans = torch.where(later, totals.unsqueeze(2), 1).cumprod(1)
    reached = (at[:, None] >= at[None, :]).reshape(later.shape)
    entering = (torch.where(reached, spans, 0) * ends.unsqueeze(1)).sum(2)[:, :-1]
    h = torch.stack([s + p * entering for s, p in zip(states, products, strict=True)], 2).flatten(1, 2)
    h = h[:, torch.arange(time, device=b.device)]
    return h.flip(1) if reverse else h


def affine_scan(
    decay: Tensor, b: Tensor, start: Tensor | None = None, *, log: bool = False, reverse: bool = False
) -> Tensor:
    """h[t] = a[t] h[t-1] + b[t] along dim 1, with h[-1] = start; reversed, h[t] = a[t] h[t+1] + b[t] and h[T] = start.

    Shapes:  decay broadcasts to b [B, T, ...], start [B, ...] or None for zeros -> h [B, T, ...], float32 for 16 bits
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf)
    """
    dtype = torch.promote_types(torch.promote_types(decay.dtype, b.dtype), torch.float32)
    decay, b = decay.to(dtype), b.to(dtype)
    decay = decay.reshape((1,) * (b.dim() - decay.dim()) + decay.shape)
    b = torch.broadcast_tensors(decay, b)[1]
    if start is not None:
        start = start.to(dtype).expand(b.shape[:1] + b.shape[2:])
    a = decay.exp() if log else decay
    if torch.compiler.is_compiling():
        return _affine_scan_traced(a, b, start, reverse)
    if b.numel() == 0:
        return b + a
    h: Tensor = _AffineScan.apply(  # type: ignore[no-untyped-call]
        a, decay.detach() if log else None, b, start, reverse
    )[0]
    return h
