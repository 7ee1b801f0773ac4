"""Feedback through a decaying state and reads of that state by Triton kernels: one pass over the states for both."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...torch_module.support.chunk_solve_read import chunk_solve_read
from .attending import CHUNK, PAIRS, _attend_states, _attend_tile, _head_weights, _rows_weights, _sequences_of
from .fused_linear_attention import _attend_logarithm, _attend_operands
from .fused_solve import _solve_empty
from .launching import OPS, _cdiv, _has_kernels, _joint_shape, _on_device, _one_device, _restarted, _rows_fit, _unasked
from .packed_rows import _alone, _packed
from .solve_kernels import _reads_kernel, _values_adjoint_kernel
from .solving import _solve_inverse, _solve_scan

ASK_SCHEMA = "Tensor w, Tensor u, Tensor x, Tensor q, Tensor g, Tensor? start, Tensor? table, bool before, float scale"


@torch.library.custom_op(
    f"{OPS}::solve_read",
    mutates_args=(),
    schema=f"({ASK_SCHEMA}, ScalarType dtype)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _ask(
    w: Tensor, u: Tensor, x: Tensor, q: Tensor, g: Tensor, start: Tensor | None, table: Tensor | None, before: bool,
    scale: float, dtype: torch.dtype,
) -> tuple[Tensor, ...]:  # fmt: skip
    """o in `dtype`, the final state, y as wide as w, the chunks' inverses, with one decay for each key w's reads and the
    writes, what decays of a chunk leave, q's weights and with one decay for each key its reads."""
    o, _, _, inverse, reads, writes, decays, weights, asked = _ask_empty(w, u, x, q, g, start, table, before, scale, dtype)
    batch, time, heads, keys = w.shape
    values, count, by_head = x.shape[-1], _cdiv(time, CHUNK), g.dim() == 3
    with _on_device(w):
        left, right = _solve_inverse(w, u, g, inverse, reads, writes, decays, 1, before)
        if by_head:
            _head_weights(q, u, decays, None, weights, scale)
        else:
            _rows_weights(q, u, g, weights, asked, None, decays, scale)
        y, states, final = _solve_scan(
            left, right, inverse, x, decays, start, w.dtype, by_head=by_head, apart=1, before=before, table=table
        )
        tile = _attend_tile("reads", q, x)
        _reads_kernel[(batch * heads * _cdiv(values, tile["BV"]), count)](
            q if by_head else asked, y, decays, weights, states, o, scale, time, heads, keys, values, BY_HEAD=by_head, **tile
        )
    return o, final, y, inverse, reads, writes, decays, weights, asked


@_ask.register_fake
def _ask_empty(
    w: Tensor, u: Tensor, x: Tensor, q: Tensor, g: Tensor, start: Tensor | None, table: Tensor | None, before: bool,
    scale: float, dtype: torch.dtype,
) -> tuple[Tensor, ...]:  # fmt: skip
    y, inverse, reads, writes, decays = _solve_empty(w, u, x, g, start, table, 1, before, w.dtype)
    final = w.new_empty(_sequences_of(w.shape[0], table), w.shape[2], w.shape[3], x.shape[3], dtype=torch.float32)
    by_head = g.dim() == 3
    weights = q.new_empty(decays.shape[0] // (3 * CHUNK if by_head else q.shape[3]) * PAIRS)
    asked = q.new_empty(0) if by_head else q.new_empty(q.shape)
    return x.new_empty(x.shape, dtype=dtype), final, y, inverse, reads, writes, decays, weights, asked


@torch.library.custom_op(
    f"{OPS}::solve_read_adjoint",
    mutates_args=(),
    schema="(Tensor d_o, Tensor? d_final, Tensor? d_y, Tensor w, Tensor u, Tensor y, Tensor q, Tensor g, Tensor? start,"
    " Tensor? table, Tensor inverse, Tensor reads, Tensor writes, Tensor decays, Tensor weights, Tensor asked, bool before,"
    " float scale, bool gate) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _ask_adjoint(
    d_o: Tensor, d_final: Tensor | None, d_y: Tensor | None, w: Tensor, u: Tensor, y: Tensor, q: Tensor, g: Tensor,
    start: Tensor | None, table: Tensor | None, inverse: Tensor, reads: Tensor, writes: Tensor, decays: Tensor,
    weights: Tensor, asked: Tensor, before: bool, scale: float, gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of w, u, x, q, g and of the first state. The chunks' states are computed again: none is kept."""
    batch, time, heads, keys = w.shape
    values, count, by_head = y.shape[-1], _cdiv(time, CHUNK), g.dim() == 3
    left, right, read = (w, u, q) if by_head else (reads, writes, asked)
    answers = torch.empty_like(y)
    with _on_device(w):
        states, _ = _attend_states(right, y, decays, None, start, by_head=by_head, totals=not by_head, table=table)
        tile = _attend_tile("values adjoint", q, y)
        _values_adjoint_kernel[(batch * heads * _cdiv(values, tile["BV"]), count)](
            d_o, weights, answers, time, heads, values, **tile
        )
        answers = answers if d_y is None else answers + d_y
        d_x, d_states, d_start = _solve_scan(
            left, right, inverse, answers, decays, d_final, w.dtype,
            by_head=by_head, apart=1, before=before, reverse=True, read=(read, d_o, scale),
            table=table,
        )  # fmt: skip
        asks = [(w, d_x, 1.0, 1, before), (q, d_o, scale, 0, False)]
        (d_w, d_q), d_u, d_g = _attend_operands(asks, u, y, g, decays, None, weights, states, d_states, gate)
    return d_w, d_u, d_x, d_q, d_g, d_start


@_ask_adjoint.register_fake
def _ask_adjoint_empty(
    d_o: Tensor, d_final: Tensor | None, d_y: Tensor | None, w: Tensor, u: Tensor, y: Tensor, q: Tensor, g: Tensor,
    start: Tensor | None, table: Tensor | None, inverse: Tensor, reads: Tensor, writes: Tensor, decays: Tensor,
    weights: Tensor, asked: Tensor, before: bool, scale: float, gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_start = w.new_empty(_sequences_of(w.shape[0], table), w.shape[2], w.shape[3], y.shape[-1], dtype=torch.float32)
    d_w, d_u, d_x, d_q, d_g = (torch.empty_like(x) for x in (w, u, y, q, g))
    return d_w, d_u, d_x, d_q, d_g, d_start


def _ask_keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    w, u, x, q, g, start, table, ctx.before, ctx.scale, _ = inputs
    ctx.x_dtype = x.dtype
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(w, u, output[2], q, g, start, table, *output[3:])


def _ask_backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None, d_y: Tensor | None, *_: Any) -> tuple[Any, ...]:
    w, u, y, q, g, start, table, *kept = ctx.saved_tensors
    d_o = torch.zeros_like(y) if d_o is None else d_o.to(w.dtype).contiguous()
    d_final = None if d_final is None else d_final.contiguous()
    given = (d_o, d_final, d_y, w, u, y, q, g, start, table, *kept, ctx.before, ctx.scale, bool(ctx.needs_input_grad[4]))
    d_w, d_u, d_x, d_q, d_g, d_start = _ask_adjoint(*given)
    return d_w, d_u, d_x.to(ctx.x_dtype), d_q, d_g, None if start is None else d_start, None, None, None, None


_ask.register_autograd(_ask_backward, setup_context=_ask_keep)


def fused_solve_read(
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
    chunk: int = CHUNK,
    scale: float = 1.0,
    dots: torch.dtype | None = None,
    dtype: torch.dtype = torch.float32,
    first: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y[t] = x[t] + w[t] S[t-1] (w[t] a[t] S[t-1] if `after`), S[t] = a[t] S[t-1] + u[t]^T y[t], o[t] = scale q[t] S[t].

    Strict: o[t] = scale q[t] S[t-1].

    Shapes:  w, u, q [B, T, H, K], x [B, T, H, V], decay [B, T, H, 1 or K] or None for 1, start [B, H, K, V] or None;
             every axis may be 1 -> o [B, T, H, V] in `dtype`, final [B, H, K, V] in float32, y [B, T, H, V] in `dots`
    Units:   a = exp(decay) if log, else a = decay; any sign, or 0 (log -inf)
    `dots` is the type of products: 16 bits or, by default, the widest of w, u and q.
    Packed sequences begin at `first` [T]; with a start each, and final states, [N, H, K, V], if `starts` are their ends.
    float64, complex numbers, chunks of another size and the CPU are left to PyTorch.
    """
    if first is not None and starts is None:
        decay, w = _restarted(decay, first, w, log), w if after else _unasked(w, first)
        q = _unasked(q, first) if strict else q
    given = [g for g in (w, u, x, q, decay, start) if g is not None]
    _one_device(given)
    wide = any(g.dtype == torch.float64 or g.is_complex() for g in given)
    lead = [g.shape[:3] for g in given if g is not start]
    begun = 1 if start is None or starts is not None else start.shape[0]
    batch, time, heads = _joint_shape(*lead, (1, 1, 1) if start is None else (begun, 1, start.shape[1]))
    rows = [g.shape[3:] for g in (w, u, q, decay) if g is not None]
    (keys,) = _joint_shape(*rows, (1,) if start is None else start.shape[2:3])
    (values,) = _joint_shape(x.shape[3:], (1,) if start is None else start.shape[3:])
    none = 0 in (batch, time, heads, keys, values)
    none = none or not _rows_fit(CHUNK, *(heads * n for n in (keys, values, CHUNK)))
    if not _has_kernels(x) or wide or none or chunk != CHUNK:
        q = q if scale == 1.0 else q.to(torch.promote_types(q.dtype, torch.float32)) * scale
        run = partial(chunk_solve_read, log=log, after=after, strict=strict, chunk=chunk)
        o, final, y = run(w, u, x, q, decay, start) if starts is None else _alone(
            starts, [w, u, x, q, decay], start, run, 1)  # fmt: skip
        return o if wide or dtype == torch.float32 else o.to(dtype), final, y
    like = torch.promote_types(torch.promote_types(w.dtype, u.dtype), q.dtype) if dots is None else dots
    like = like if like in (torch.float16, torch.bfloat16) else torch.float32
    if decay is None:
        decay, log = torch.zeros((1, 1, 1, 1), device=x.device), True
    w, u, q = (g.to(like).expand(batch, time, heads, keys) for g in (w, u, q))
    packed = None if starts is None else _packed(starts, time, CHUNK)
    if start is not None:
        number = batch if packed is None else packed.sequences
        start = start.float().expand(number, heads, keys, values).contiguous()
    asked = q
    if strict:  # a read before the step is a read after the step before it
        q = torch.cat([q[:, 1:], torch.zeros_like(q[:, :1])], 1) if packed is None else packed.later(q)
    signs = None
    if not log:  # the sign of the decays so far goes into the operands
        decay, signs = _attend_logarithm(decay, time)
        if packed is not None:
            signs = packed.restarted(signs.expand(batch, time, -1, -1))
        met = signs if after else pad(signs, (0, 0, 0, 0, 1, 0), value=1.0)[:, :time]
        met = met if after or packed is None else torch.where(packed.first(4), 1.0, met)
        w, u, q = w * met.to(like), u * signs.to(like), q * signs.to(like)
    g = decay.expand(batch, time, heads, -1)
    g = g.squeeze(-1) if g.shape[-1] == 1 else g
    x = x.expand(batch, time, heads, values)
    w, u, x, q, g = (z.contiguous() for z in ((w, u, x, q, g) if packed is None else map(packed.apart, (w, u, x, q, g))))
    o, final, y = _ask(w, u, x, q, g, start, None if packed is None else packed.table, not after, float(scale), dtype)[:3]
    if packed is not None:
        o, y = packed.together(o), packed.together(y)
    if signs is not None:
        final = final * (signs[:, -1] if packed is None else packed.last(signs, 1.0)).unsqueeze(-1)
    if strict and packed is not None:
        o = packed.before(o, packed.asked(asked, start, final, scale).to(dtype))
    elif strict:
        before = asked[:, 0].float() * scale
        o_0 = torch.zeros_like(o[:, 0]) if start is None else torch.einsum("bhk,bhkv->bhv", before, start).to(dtype)
        o = torch.cat([o_0.unsqueeze(1), o[:, :-1]], 1)
    return o, final, y
