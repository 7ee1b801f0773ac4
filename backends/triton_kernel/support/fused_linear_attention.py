"""Chunkwise linear attention with decays by Triton kernels, forward and adjoint, as operators that compilers see through."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...torch_module.support.chunk_linear_attention import chunk_linear_attention
from .attend_kernels import _head_adjoint_kernel, _rows_adjoint_kernel, _weights_adjoint_kernel
from .attending import (
    CHUNK,
    LEVELS,
    PAIRS,
    WALK_SLAB,
    _attend_choices,
    _attend_states,
    _attend_tile,
    _attend_walk,
    _head_sums,
    _head_weights,
    _rows_weights,
    _sequences_of,
)
from .launching import OPS, _cdiv, _has_kernels, _joint_shape, _on_device, _one_device, _restarted, _rows_fit, _unasked
from .packed_rows import _alone, _packed

# Of a read: the operand, the gradient of what was read, their factor, how many rows are a step, and is it before its decay?
Ask = tuple[Tensor, Tensor, float, int, bool]


@torch.library.custom_op(
    f"{OPS}::attend",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor g, Tensor? signs, Tensor? start, Tensor? table,"
    " float scale, bool strict, ScalarType dtype) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _attend(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, signs: Tensor | None, start: Tensor | None, table: Tensor | None,
    scale: float, strict: bool, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """o in `dtype`, the final state, the weights of the chunks' pairs, with one decay for each of many keys reads and writes,
    and what decays of a chunk leave: with one for each head their sums, of reads and writes the totals."""
    _, _, weights, reads, writes, decays = _attend_empty(q, k, v, g, signs, start, table, scale, strict, dtype)
    by_head, decayed = g.dim() == 3, reads.numel() > 0
    with _on_device(q):
        if by_head:
            _head_sums(g, decays)
            _head_weights(q, k, decays, signs, weights, scale, strict=strict)
        else:
            _rows_weights(q, k, g, weights, reads, writes, decays, scale, strict=strict)
        read, left = (reads, writes) if decayed else (q, k)
        o, final, _ = _attend_walk(
            read, left, v, decays if by_head or decayed else g, signs, weights, start, scale, dtype, by_head=by_head,
            totals=decayed, strict=strict, table=table,
        )  # fmt: skip
    if strict:  # the first row reads what was there before all
        o[:, 0] = 0 if start is None else torch.einsum("bhk,bhkv->bhv", q[:, 0].float() * scale, start)
    return o, final, weights, reads, writes, decays


@_attend.register_fake
def _attend_empty(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, signs: Tensor | None, start: Tensor | None, table: Tensor | None,
    scale: float, strict: bool, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, heads, keys = q.shape
    o = v.new_empty(v.shape, dtype=dtype)
    final = v.new_empty(_sequences_of(batch, table), heads, keys, v.shape[-1], dtype=torch.float32)
    count = (time + CHUNK - 1) // CHUNK  # no dimension of its own, as compilers tell one that is 1 from the others
    chunks, by_head = batch * count * heads, g.dim() == 3
    weights = q.new_empty(chunks * PAIRS)
    if by_head or keys <= WALK_SLAB:
        decays = q.new_empty(chunks * 3 * CHUNK if by_head else 0, dtype=torch.float32)
        return o, final, weights, q.new_empty(0), q.new_empty(0), decays
    return o, final, weights, q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(chunks * keys, dtype=torch.float32)


def _head_operands(
    asks: list[Ask], k: Tensor, v: Tensor, g: Tensor, sums: Tensor, signs: Tensor | None, weights: Tensor | None,
    states: Tensor, d_states: Tensor, gate: bool,
) -> tuple[list[Tensor], Tensor, Tensor]:  # fmt: skip
    """Gradients of one read or two, of which the second is after the step, of k and of one decay for each head."""
    batch, time, heads, keys = k.shape
    (q, d_o, scale, apart, before), (asked, d_asked, factor, *_) = asks[0], asks[-1]
    tile = _attend_tile("head adjoint", k, v, "read twice" if len(asks) > 1 else "narrow" if v.shape[-1] <= 16 else "")
    blocks = _cdiv(keys, tile["BK"])
    d_qs, d_k = [torch.empty_like(k) for _ in asks], torch.empty_like(k)
    d_g = g.new_zeros(blocks if gate else 0, *g.shape, dtype=torch.float32)
    _head_adjoint_kernel[batch * heads, blocks, _cdiv(time, CHUNK)](
        q, k, v, sums, sums if signs is None else signs, _attend_choices(k.device, k.dtype),
        k if weights is None else weights, d_o, asked, d_asked, states, d_states, d_qs[0], d_k, d_g, d_qs[-1], scale, factor,
        batch, time, heads, keys, v.shape[-1], GATE=gate, SIGNED=signs is not None, APART=apart, BEFORE=before,
        TWICE=len(asks) > 1, KEPT=weights is not None, LEVELS=LEVELS, **tile,
    )  # fmt: skip
    return d_qs, d_k, (d_g.squeeze(0) if gate and blocks == 1 else d_g.sum(0)).to(g.dtype)


def _rows_operands(
    asks: list[Ask], k: Tensor, v: Tensor, g: Tensor, states: Tensor, d_states: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    """The same with one decay for each key, one read after the other: each adds to the gradients of k and g."""
    batch, time, heads, keys = k.shape
    count = _cdiv(time, CHUNK)
    d_qs, d_k, d_g = [torch.empty_like(k) for _ in asks], torch.empty_like(k), torch.empty_like(g)
    for (q, d_o, scale, apart, before), d_q in zip(asks, d_qs, strict=True):
        d_weights = k.new_empty(batch, count, heads, PAIRS)
        tile = _attend_tile("weights adjoint", q, v)
        _weights_adjoint_kernel[batch * heads, count](v, d_o, d_weights, scale, time, heads, v.shape[-1], **tile)
        tile = _attend_tile("rows adjoint", q, v, "" if d_q is d_qs[0] else "read again")
        _rows_adjoint_kernel[batch * heads, _cdiv(keys, tile["BK"]), count](
            q, k, v, g, _attend_choices(q.device, q.dtype, apart, before), d_o, d_weights, states, d_states, d_q, d_k, d_g,
            scale, time, heads, keys, v.shape[-1], APART=apart, BEFORE=before, WRITES=d_q is d_qs[0], LEVELS=LEVELS, **tile,
        )  # fmt: skip
    return d_qs, d_k, d_g


def _attend_operands(
    asks: list[Ask], k: Tensor, v: Tensor, g: Tensor, sums: Tensor, signs: Tensor | None, weights: Tensor | None,
    states: Tensor, d_states: Tensor, gate: bool,
) -> tuple[list[Tensor], Tensor, Tensor]:  # fmt: skip
    """Gradients of the reads, of k and of g, from those of what was read and the states on both sides of every chunk.

    With one decay for each head, whose `sums` are there, the `weights` of the last read may be, too.
    """
    if g.dim() == 3:
        return _head_operands(asks, k, v, g, sums, signs, weights, states, d_states, gate)
    return _rows_operands(asks, k, v, g, states, d_states)


@torch.library.custom_op(
    f"{OPS}::attend_adjoint",
    mutates_args=(),
    schema="(Tensor d_o, Tensor? d_final, Tensor q, Tensor k, Tensor v, Tensor g, Tensor? signs, Tensor? start,"
    " Tensor? table, Tensor weights, Tensor reads, Tensor writes, Tensor decays, float scale, bool gate)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _attend_adjoint(
    d_o: Tensor, d_final: Tensor | None, q: Tensor, k: Tensor, v: Tensor, g: Tensor, signs: Tensor | None,
    start: Tensor | None, table: Tensor | None, weights: Tensor, reads: Tensor, writes: Tensor, decays: Tensor,
    scale: float, gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, g and of the first state. The chunks' states are computed again: none is kept."""
    by_head, decayed = g.dim() == 3, reads.numel() > 0
    read, left = (reads, writes) if decayed else (q, k)
    decay = decays if by_head or decayed else g
    with _on_device(q):
        states, _ = _attend_states(left, v, decay, signs, start, by_head=by_head, totals=decayed, table=table)
        d_v, d_start, d_states = _attend_walk(
            read, left, d_o, decay, signs, weights, d_final, scale, v.dtype, by_head=by_head, totals=decayed, reverse=True,
            table=table,
        )  # fmt: skip
        asks = [(q, d_o, scale, 0, False)]
        (d_q,), d_k, d_g = _attend_operands(asks, k, v, g, decays, signs, weights, states, d_states, gate)
    return d_q, d_k, d_v, d_g, d_start


@_attend_adjoint.register_fake
def _attend_adjoint_empty(
    d_o: Tensor, d_final: Tensor | None, q: Tensor, k: Tensor, v: Tensor, g: Tensor, signs: Tensor | None,
    start: Tensor | None, table: Tensor | None, weights: Tensor, reads: Tensor, writes: Tensor, decays: Tensor,
    scale: float, gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_start = q.new_empty(_sequences_of(q.shape[0], table), q.shape[2], q.shape[3], v.shape[-1], dtype=torch.float32)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.empty_like(g), d_start


def _attend_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *given, ctx.scale, ctx.strict, _ = inputs
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*given, *output[2:])


def _attend_backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None, *_: Tensor | None) -> tuple[Any, ...]:
    q, k, v, g, signs, start, table, *kept = ctx.saved_tensors
    d_o = torch.zeros_like(v) if d_o is None else d_o.to(v.dtype).contiguous()
    d_final = None if d_final is None else d_final.contiguous()
    read, d_read = (_attend_later(q), _attend_later(d_o)) if ctx.strict else (q, d_o)
    given = (d_read, d_final, read, k, v, g, signs, start, table, *kept)
    d_q, *found, d_start = _attend_adjoint(*given, ctx.scale, bool(ctx.needs_input_grad[3]))
    if ctx.strict:
        d_first = torch.zeros_like(q[:, 0])
        if start is not None:  # which the first row reads as it is
            grad = d_o[:, 0].float() * ctx.scale
            d_first = torch.einsum("bhv,bhkv->bhk", grad, start).to(q.dtype)
            d_start = d_start + q[:, 0].float().unsqueeze(-1) * grad.unsqueeze(-2)
        d_q = torch.cat([d_first.unsqueeze(1), d_q[:, :-1]], 1)
    return d_q, *found, None, None if start is None else d_start, None, None, None, None


_attend.register_autograd(_attend_backward, setup_context=_attend_setup)


def _attend_later(x: Tensor) -> Tensor:
    """Rows that belong to the step before: a read before a step is one after the step before it."""
    return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)


def _attend_logarithm(decay: Tensor, time: int) -> tuple[Tensor, Tensor]:
    """(log |a|, the sign of a's product up to each of the positions) for plain decays, which may be the same everywhere.

    A 0 becomes 2^-100, which is as good as 0 and keeps its gradient.
    """
    tiny = 2.0**-100
    decay = decay.float()
    nearly = torch.where(decay.abs() < tiny, tiny, decay)
    negative = decay < 0
    if decay.shape[1] == 1:
        odd = torch.arange(time, device=decay.device) % 2 == 0
        negative = negative & odd[:, None, None]
    else:  # along contiguous memory: a sum along an outer dimension is slow
        negative = negative.movedim(1, -1).contiguous().cumsum(-1).bitwise_and(1).movedim(-1, 1).bool()
    return (decay + (nearly - decay).detach()).abs().log(), torch.where(negative, -1.0, 1.0)


def fused_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None = None,
    start: Tensor | None = None,
    *,
    log: bool = True,
    strict: bool = False,
    columns: bool = False,
    chunk: int = CHUNK,
    scale: float = 1.0,
    dots: torch.dtype | None = None,
    dtype: torch.dtype = torch.float32,
    first: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S[t] = a[t] S[t-1] + k[t] v[t]^T; o[t] = scale q[t]^T S[t], or strictly q[t]^T S[t-1]; final = S[T-1].

    Shapes:  q, k [B, T, H, K], v [B, T, H, V], decay [B, T, H, 1] (all channels), [B, T, H, K] (rows of S), with
             `columns` [B, T, H, V] (columns of S), or None for 1; each axis may be 1; start [B, H, K, V] or None
             -> o [B, T, H, V] in `dtype`, final [B, H, K, V] in float32
    Units:   a = exp(decay) if log, else a = decay; any sign, or 0 (log -inf)
    `dots` is the type that q, k and v are multiplied in: 16 bits or, by default, the widest of their own.
    Packed sequences begin at `first` [T]; with a start each, and final states, [N, H, K, V], if `starts` are their ends.
    float64, complex numbers, decays along columns, chunks of another size and the CPU are left to PyTorch.
    """
    time = 0 if 0 in (q.shape[1], k.shape[1], v.shape[1]) else max(q.shape[1], k.shape[1], v.shape[1])
    if starts is not None and strict and time:  # a read before a step is one after the step before it
        by, q = _packed(starts, time, CHUNK), q.expand(-1, time, -1, -1)
        o, final = fused_linear_attention(
            by.later(q), k, v, decay, start, log=log, columns=columns, chunk=chunk, scale=scale, dots=dots, dtype=dtype,
            starts=starts,
        )  # fmt: skip
        return by.before(o, by.asked(q, start, final, scale).to(o.dtype)), final
    if first is not None and starts is None:
        decay, q = _restarted(decay, first, q, log), _unasked(q, first) if strict else q
    given = [x for x in (q, k, v, decay, start) if x is not None]
    _one_device(given)
    wide = any(x.dtype == torch.float64 or x.is_complex() for x in given)
    by_column = columns and decay is not None and decay.shape[-1] > 1
    shape = _joint_shape(*(x.shape[:3] for x in (q, k, v) if x is not None))
    widths = (q.shape[-1], k.shape[-1], v.shape[-1])
    none = 0 in (*shape, *widths) or not _rows_fit(CHUNK, *(shape[2] * n for n in widths))
    if not _has_kernels(q) or wide or by_column or chunk != CHUNK or none:
        if scale != 1.0:
            q = q.to(torch.promote_types(q.dtype, torch.float32)) * scale
        run = partial(chunk_linear_attention, log=log, strict=strict, columns=columns, chunk=chunk)
        o, final = run(q, k, v, decay, start) if starts is None else _alone(starts, [q, k, v, decay], start, run, 1)
        return o if dtype == torch.float32 else o.to(torch.promote_types(dtype, torch.float64) if wide else dtype), final
    like = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype) if dots is None else dots
    if like not in (torch.float16, torch.bfloat16):
        like = torch.float32
    q, k, v = q.to(like), k.to(like), v.to(like)
    if decay is None:
        decay, log = torch.zeros((1, 1, 1, 1), device=q.device), True
    lead = (x.shape[:3] for x in (q, k, v, decay))
    begun = 1 if start is None or starts is not None else start.shape[0]
    batch, time, heads = _joint_shape(*lead, (begun, 1, 1))
    packed = None if starts is None else _packed(starts, time, CHUNK)
    keys = max(q.shape[-1], k.shape[-1])
    q, k, v = q.expand(batch, time, heads, keys), k.expand(batch, time, heads, keys), v.expand(batch, time, heads, -1)
    g, signs = (decay, None) if log else _attend_logarithm(decay, time)
    g = g.expand(batch, time, heads, -1)
    signs = None if signs is None else signs.expand(batch, time, heads, -1)
    if signs is not None and packed is not None:
        signs = packed.restarted(signs)
    if start is not None:
        start = start.float().expand(batch if packed is None else packed.sequences, heads, keys, v.shape[-1])
    by_row = signs
    if g.shape[-1] == 1:
        g, by_row = g.squeeze(-1), None if signs is None else signs.squeeze(-1).contiguous()
    elif signs is not None:  # one sign for each key goes into the operands, one for each row into the kernels
        met = pad(signs, (0, 0, 0, 0, 1, 0), value=1.0)[:, :time] if strict else signs
        q, k, by_row = q * met.to(like), k * signs.to(like), None
    q, k, v, g = q.contiguous(), k.contiguous(), v.contiguous(), g.contiguous()
    table = None
    if packed is not None:
        q, k, v, g = (packed.apart(x) for x in (q, k, v, g))
        by_row, table = None if by_row is None else packed.apart(by_row), packed.table
    o, final = _attend(q, k, v, g, by_row, start, table, float(scale), strict, dtype)[:2]
    if signs is not None:
        last = signs[:, -1] if packed is None else packed.last(signs, 1.0)
        final = final * last.reshape(len(final), heads, -1, 1)
    return o if packed is None else packed.together(o), final
