"""Chunkwise linear attention with decays by Triton kernels, forward and adjoint, as operators that compilers see through."""

from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from ...torch_module.support.chunk_linear_attention import chunk_linear_attention
from .attend_kernels import (
    _head_adjoint_kernel,
    _reads_kernel,
    _rows_adjoint_kernel,
    _rows_weights_kernel,
    _states_kernel,
    _values_adjoint_kernel,
    _weights_adjoint_kernel,
)
from .launching import OPS, _block, _dot_precision, _has_kernels, _on_device, _one_device, _restarted, _unasked
from .tuning import _tuned

CHUNK = 64
LEVELS = CHUNK.bit_length() - 1
# Largest tiles (keys, values) and warps of each kernel for 16-bit operands, spill-free on sm_80 to sm_100; float32
# operands take half the width along both.
ATTEND_TILES = {
    "weights": (32, 0, 4),
    "states": (64, 64, 4),
    "reads": (64, 64, 4),
    "values adjoint": (64, 64, 4),
    "weights adjoint": (0, 64, 4),
    "rows adjoint": (32, 64, 4),
    "head adjoint": (128, 64, 8),
}


@cache
def _attend_choices(device: torch.device, dtype: torch.dtype, apart: int = 0, before: bool = False) -> Tensor:
    """Sums of decays as matrices of 1, 0 and -1 [4 levels + 6, C, C], for row i over l.

    levels + 2: a level has half blocks of 2^level rows. A second half meets the first before its first row, and row i reads
    past the decays l <= i of its half; a first half meets the second behind its last row, and row i writes before the
    decays l > i of its half. Then reads of what enters the chunk, and writes to what leaves it.
    levels + 2: their transposes, the reads and writes that straddle decay i.
    levels + 1: between the middle of row i's block of 2^level rows and row i, with -1 before the middle.
    levels + 1: the rows of its block that are not before row i; none for the first, whose decay acts on no pair there.
    `before`: reads come before the decay of their step of `apart` rows, and take the decays of the steps before it.
    """
    row = torch.arange(CHUNK, device=device)
    upto = row[:, None] >= row
    met = row[:, None] // apart > row // apart if before else upto
    halves, middles, later = [], [], []
    for level in range(LEVELS + 1):
        block = row >> level
        same = block[:, None] == block
        halves.append(same & torch.where(block[:, None] % 2 == 1, met, ~upto))
        middle = (block << level) + max(1, (1 << level) // 2)  # no row is ahead of it at level 0
        ahead, behind = same & (row >= middle) & upto, same & (row < middle) & ~upto
        middles.append(ahead.float() - behind.float())
        later.append(same & upto.mT & (row > block << level)[:, None])
    both = torch.stack([*halves[:LEVELS], met, ~upto]).float()
    found = torch.cat([both, both.mT, torch.stack(middles), torch.stack(later).float()])
    return found.to(torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)


def _attend_tile(name: str, q: Tensor, v: Tensor) -> dict[str, Any]:
    """The arguments of a launch that set its tile."""
    keys, values, warps = ATTEND_TILES[name]
    if q.dtype == torch.float32:
        keys, values = keys // 2, values // 2
    found = {"C": CHUNK, "PRECISION": _dot_precision(), "num_warps": warps}
    if keys:
        found["BK"] = _block(q.shape[-1], keys)
    if values:
        found["BV"] = _block(v.shape[-1], values)
    return _tuned(name, found, q, q.shape[1], q.shape[-1], v.shape[-1])


def _attend_states(
    left: Tensor, right: Tensor, decay: Tensor, signs: Tensor | None, start: Tensor | None, scale: float,
    *, by_head: bool, reverse: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The state that enters every chunk [B, N, H, K, V], and the last [B, H, K, V]; reversed, what leaves and the first."""
    batch, time, heads, keys = left.shape
    values = right.shape[-1]
    count = triton.cdiv(time, CHUNK)
    states = left.new_empty(batch, count, heads, keys, values)
    final = left.new_empty(batch, heads, keys, values, dtype=torch.float32)
    tile = _attend_tile("states", left, right)
    grid = (batch * heads, triton.cdiv(values, tile["BV"]), triton.cdiv(keys, tile["BK"]))
    _states_kernel[grid](
        left, right, decay, final if signs is None else signs, final if start is None else start, states, final,
        scale, time, heads, keys, values,
        BY_HEAD=by_head, SIGNED=signs is not None, REVERSE=reverse, HAS_START=start is not None, **tile,
    )  # fmt: skip
    return states, final


@torch.library.custom_op(
    f"{OPS}::attend",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor g, Tensor? signs, Tensor? start, float scale, ScalarType dtype)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _attend(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, signs: Tensor | None, start: Tensor | None,
    scale: float, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """o in `dtype`, the final state, and with one decay for each key: weights, reads, writes, totals of the chunks."""
    o, final, weights, reads, writes, totals = _attend_empty(q, k, v, g, signs, start, scale, dtype)
    batch, time, heads, keys = q.shape
    count, by_head = triton.cdiv(time, CHUNK), g.dim() == 3
    with _on_device(q):
        if by_head:
            left, read, decay = k, q, g
        else:
            tile = _attend_tile("weights", q, v)
            _rows_weights_kernel[(batch * heads, count)](
                q, k, g, _attend_choices(q.device, q.dtype), weights, reads, writes, totals, scale, time, heads, keys,
                APART=0, BEFORE=False, LEVELS=LEVELS, **tile,
            )  # fmt: skip
            left, read, decay = writes, reads, totals
        states, last = _attend_states(left, v, decay, signs, start, 1.0, by_head=by_head)
        tile = _attend_tile("reads", q, v)
        _reads_kernel[(batch * heads, triton.cdiv(v.shape[-1], tile["BV"]), count)](
            read, k, v, g, v if signs is None else signs, weights, states, o, scale, time, heads, keys, v.shape[-1],
            BY_HEAD=by_head, SIGNED=signs is not None, **tile,
        )  # fmt: skip
    return o, last, weights, reads, writes, totals


@_attend.register_fake
def _attend_empty(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, signs: Tensor | None, start: Tensor | None,
    scale: float, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, time, heads, keys = q.shape
    o = v.new_empty(v.shape, dtype=dtype)
    final = v.new_empty(batch, heads, keys, v.shape[-1], dtype=torch.float32)
    if g.dim() == 3:
        return o, final, q.new_empty(0), q.new_empty(0), q.new_empty(0), q.new_empty(0)
    totals = q.new_empty(batch, (time + CHUNK - 1) // CHUNK, heads, keys, dtype=torch.float32)
    return o, final, q.new_empty(batch, time, heads, CHUNK), q.new_empty(q.shape), q.new_empty(q.shape), totals


def _attend_operands(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, signs: Tensor | None, d_o: Tensor, states: Tensor, d_states: Tensor,
    scale: float, gate: bool, *, apart: int = 0, before: bool = False, found: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and g, from those of the outputs and the states on both sides of every chunk.

    `found`: what another read of the same writes has found for k and g, the writes themselves included; q's part is added.
    """
    batch, time, heads, keys = q.shape
    values, count = v.shape[-1], triton.cdiv(time, CHUNK)
    d_q, d_k = torch.empty_like(q), torch.empty_like(k) if found is None else found[0]
    d_weights = q.new_empty(batch, time, heads, CHUNK)
    tile = _attend_tile("weights adjoint", q, v)
    _weights_adjoint_kernel[(batch * heads, count)](v, d_o, d_weights, scale, time, heads, values, **tile)
    tile = _attend_tile("head adjoint" if g.dim() == 3 else "rows adjoint", q, v)
    blocks = triton.cdiv(keys, tile["BK"])
    grid = (batch * heads, blocks, count)
    given = (d_o, d_weights, states, d_states, d_q, d_k)
    order = {"APART": apart, "BEFORE": before, "WRITES": found is None}
    if g.dim() == 3:
        parts = g.new_zeros(blocks if gate else 0, *g.shape, dtype=torch.float32)
        _head_adjoint_kernel[grid](
            q, k, v, g, q if signs is None else signs, *given, parts, scale, batch, time, heads, keys, values,
            GATE=gate, SIGNED=signs is not None, **order, **tile,
        )  # fmt: skip
        d_g = parts.sum(0).to(g.dtype)
        return d_q, d_k, d_g if found is None else d_g + found[1]
    d_g = torch.empty_like(g) if found is None else found[1]
    choices = _attend_choices(q.device, q.dtype, apart, before)
    _rows_adjoint_kernel[grid](
        q, k, v, g, choices, *given, d_g, scale, time, heads, keys, values, LEVELS=LEVELS, **order, **tile
    )
    return d_q, d_k, d_g


@torch.library.custom_op(
    f"{OPS}::attend_adjoint",
    mutates_args=(),
    schema="(Tensor d_o, Tensor? d_final, Tensor q, Tensor k, Tensor v, Tensor g, Tensor? signs, Tensor? start,"
    " Tensor weights, Tensor reads, Tensor writes, Tensor totals, float scale, bool gate)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _attend_adjoint(
    d_o: Tensor, d_final: Tensor | None, q: Tensor, k: Tensor, v: Tensor, g: Tensor, signs: Tensor | None,
    start: Tensor | None, weights: Tensor, reads: Tensor, writes: Tensor, totals: Tensor, scale: float, gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, g and of the first state. The chunks' states are computed again: none is kept."""
    batch, time, heads, keys = q.shape
    values, count, by_head = v.shape[-1], triton.cdiv(time, CHUNK), g.dim() == 3
    left, read, decay = (k, q, g) if by_head else (writes, reads, totals)
    d_v = torch.empty_like(v)
    with _on_device(q):
        states, _ = _attend_states(left, v, decay, signs, start, 1.0, by_head=by_head)
        d_states, d_start = _attend_states(read, d_o, decay, signs, d_final, scale, by_head=by_head, reverse=True)
        tile = _attend_tile("values adjoint", q, v)
        _values_adjoint_kernel[(batch * heads, triton.cdiv(values, tile["BV"]), count)](
            q, left, d_o, g, q if signs is None else signs, weights, d_states, d_v, scale, time, heads, keys, values,
            BY_HEAD=by_head, SIGNED=signs is not None, STATES=True, **tile,
        )  # fmt: skip
        d_q, d_k, d_g = _attend_operands(q, k, v, g, signs, d_o, states, d_states, scale, gate)
    return d_q, d_k, d_v, d_g, d_start


@_attend_adjoint.register_fake
def _attend_adjoint_empty(
    d_o: Tensor, d_final: Tensor | None, q: Tensor, k: Tensor, v: Tensor, g: Tensor, signs: Tensor | None,
    start: Tensor | None, weights: Tensor, reads: Tensor, writes: Tensor, totals: Tensor, scale: float, gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_start = q.new_empty(q.shape[0], q.shape[2], q.shape[3], v.shape[-1], dtype=torch.float32)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.empty_like(g), d_start


def _attend_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *given, ctx.scale, _ = inputs
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*given, *output[2:])


def _attend_backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None, *_: Tensor | None) -> tuple[Any, ...]:
    q, k, v, g, signs, start, *kept = ctx.saved_tensors
    d_o = torch.zeros_like(v) if d_o is None else d_o.to(v.dtype).contiguous()
    d_final = None if d_final is None else d_final.contiguous()
    given = (d_o, d_final, q, k, v, g, signs, start, *kept)
    *found, d_start = _attend_adjoint(*given, ctx.scale, bool(ctx.needs_input_grad[3]))
    return *found, None, None if start is None else d_start, None, None


_attend.register_autograd(_attend_backward, setup_context=_attend_setup)


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
) -> tuple[Tensor, Tensor]:
    """S[t] = a[t] S[t-1] + k[t] v[t]^T; o[t] = scale q[t]^T S[t], or strictly q[t]^T S[t-1]; final = S[T-1].

    Shapes:  q, k [B, T, H, K], v [B, T, H, V], decay [B, T, H, 1] (all channels), [B, T, H, K] (rows of S), with
             `columns` [B, T, H, V] (columns of S), or None for 1; each axis may be 1; start [B, H, K, V] or None
             -> o [B, T, H, V] in `dtype`, final [B, H, K, V] in float32
    Units:   a = exp(decay) if log, else a = decay; any sign, or 0 (log -inf)
    `dots` is the type that q, k and v are multiplied in: 16 bits or, by default, the widest of their own.
    float64, complex numbers, decays along columns, chunks of another size and the CPU are left to PyTorch.
    """
    if first is not None:
        decay, q = _restarted(decay, first, q, log), _unasked(q, first) if strict else q
    given = [x for x in (q, k, v, decay, start) if x is not None]
    _one_device(given)
    wide = any(x.dtype == torch.float64 or x.is_complex() for x in given)
    by_column = columns and decay is not None and decay.shape[-1] > 1
    shape = torch.broadcast_shapes(*(x.shape[:3] for x in (q, k, v) if x is not None))
    if not _has_kernels(q) or wide or by_column or chunk != CHUNK or 0 in (*shape, q.shape[-1], k.shape[-1], v.shape[-1]):
        if scale != 1.0:
            q = q.to(torch.promote_types(q.dtype, torch.float32)) * scale
        o, final = chunk_linear_attention(q, k, v, decay, start, log=log, strict=strict, columns=columns, chunk=chunk)
        return o if dtype == torch.float32 else o.to(torch.promote_types(dtype, torch.float64) if wide else dtype), final
    like = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype) if dots is None else dots
    if like not in (torch.float16, torch.bfloat16):
        like = torch.float32
    q, k, v = q.to(like), k.to(like), v.to(like)
    if decay is None:
        decay, log = torch.zeros((1, 1, 1, 1), device=q.device), True
    lead = (x.shape[:3] for x in (q, k, v, decay))
    batch, time, heads = torch.broadcast_shapes(*lead, (1 if start is None else start.shape[0], 1, 1))
    keys = max(q.shape[-1], k.shape[-1])
    q, k, v = q.expand(batch, time, heads, keys), k.expand(batch, time, heads, keys), v.expand(batch, time, heads, -1)
    g, signs = (decay, None) if log else _attend_logarithm(decay, time)
    g = g.expand(batch, time, heads, -1)
    signs = None if signs is None else signs.expand(batch, time, heads, -1)
    if start is not None:
        start = start.float().expand(batch, heads, keys, v.shape[-1]).contiguous()
    before = None
    if strict:  # a read before the step is a read after the step before it
        before = q[:, 0].float() * scale
        q = torch.cat([q[:, 1:], torch.zeros_like(q[:, :1])], 1)
    by_row = signs
    if g.shape[-1] == 1:
        g, by_row = g.squeeze(-1), None if signs is None else signs.squeeze(-1).contiguous()
    elif signs is not None:  # one sign for each key goes into the operands, one for each row into the kernels
        q, k, by_row = q * signs.to(like), k * signs.to(like), None
    q, k, v, g = q.contiguous(), k.contiguous(), v.contiguous(), g.contiguous()
    o, final = _attend(q, k, v, g, by_row, start, float(scale), dtype)[:2]
    if signs is not None:
        final = final * signs[:, -1].reshape(batch, heads, -1, 1)
    if before is not None:
        o_0 = torch.zeros_like(o[:, 0]) if start is None else torch.einsum("bhk,bhkv->bhv", before, start).to(dtype)
        o = torch.cat([o_0.unsqueeze(1), o[:, :-1]], 1)
    return o, final
