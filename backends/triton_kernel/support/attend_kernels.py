"""Kernels of chunkwise linear attention: what a chunk's rows weigh, states between chunks, reads, and their adjoints.

A chunk has C = 64 rows. Decays are base-2 logarithms g; what decays from row j to row i has the exponent
g[j+1] + .. + g[i], always a sum of those terms and never a difference of longer float32 sums, so that strong decays cost
nothing. One decay for all channels makes a C x C matrix of factors, by differences of float64 sums (`_head_sums_kernel`).
One for each key is split over the pair (i, j):
- by halving: where i is in the second half of a block of 2 s rows and j in the first, the read takes the sum from the
  block's middle to i and the write the sum from j to the middle. Neither exponent is positive for decays up to 1, and
  log2 C products of C x C x K tiles cover all pairs.
- at once, in blocks so small that nothing in them decays by more than 2^-8 up to their middle or from there: both take
  their exponent from the middle, one of them with the other sign, and no factor leaves [2^-8, 2^8]. Weak decays, the usual
  ones, need this step alone.
The gradient of a decay sums over the pairs that straddle it, along the same halves; in the small blocks, where that
loses at most those 8 bits, as what is read after it less what is written after it.
"""

import triton
import triton.language as tl

from .decay_kernels import (
    _across,
    _chunks_of,
    _gates_of,
    _head_decays,
    _head_factors,
    _load_pairs,
    _load_start,
    _load_tile,
    _middle_sums,
    _signs_of,
    _store_tile,
    _store_triangle,
    _straddling_sums,
    _sums,
    _within,
)


@triton.jit
def _rows_weights_kernel(
    q, k, g, choices, weights, reads, writes, totals, scale, T, H, K,
    APART: tl.constexpr, BEFORE: tl.constexpr, STRICT: tl.constexpr, WHOLE: tl.constexpr, ALONE: tl.constexpr,
    WRITES: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One decay for each key: A[i,j] = sum_k q_i k_j 2^(i <- j); reads q 2^(i <- chunk's start); writes k 2^(end <- j).

    q, k, g, reads, writes [B, T, H, K], weights [B, N, H, pairs], totals [B, N, H, K]: what a whole chunk leaves.
    ALONE: only the weights; without WRITES those and the reads. WHOLE: weights as squares [B, T, H, C]. STRICT: row i has
    the q of the next.
    """
    plane, chunk = tl.program_id(0), tl.program_id(1)
    batch, head = (plane // H).to(tl.int64), plane % H
    LIKE: tl.constexpr = q.dtype.element_ty
    row, column = tl.arange(0, C), tl.arange(0, C)
    base = (batch * T + chunk * C) * H + head
    rows, stride = T - chunk * C, H * K
    SHIFT: tl.constexpr = 1 if STRICT else 0
    found = tl.zeros([C, C], tl.float32)
    for first in tl.range(0, K, BK, disable_licm=True):
        key = first + tl.arange(0, BK)
        gate = _gates_of(_load_tile(g + base * K, row, key, stride, rows, K))
        # Tiles are loaded where they are used, and again: what is kept, or hoisted, is spilled.
        if not ALONE:
            prefix = tl.exp2(_sums(choices, LEVELS, gate, C, PRECISION))
            q_tile = _load_tile(q + (base + SHIFT * H) * K, row, key, stride, rows - SHIFT, K)
            _store_tile(reads + base * K, q_tile * prefix * scale, row, key, stride, rows, K)
            if WRITES:
                suffix = tl.exp2(_sums(choices, LEVELS + 1, gate, C, PRECISION))
                k_tile = _load_tile(k + base * K, row, key, stride, rows, K)
                _store_tile(writes + base * K, k_tile * suffix, row, key, stride, rows, K)
                place = ((batch * tl.num_programs(1) + chunk) * H + head) * K + key
                tl.store(totals + place, tl.exp2(tl.sum(gate, 0)), mask=key < K)
        small = 0
        if not BEFORE:
            small, sums = _middle_sums(choices, gate, LEVELS, C, PRECISION)
            q_tile = _load_tile(q + (base + SHIFT * H) * K, row, key, stride, rows - SHIFT, K)
            k_tile = _load_tile(k + base * K, row, key, stride, rows, K)
            read, write = (q_tile * tl.exp2(sums)).to(LIKE), (k_tile * tl.exp2(-sums)).to(LIKE)
            products = tl.dot(read, tl.trans(write), input_precision=PRECISION)
            found += tl.where(_within(row, column, small, APART), products, 0.0)
        for level in tl.range(small, LEVELS, disable_licm=True):
            gate = _gates_of(_load_tile(g + base * K, row, key, stride, rows, K))
            factor = tl.exp2(_sums(choices, level, gate, C, PRECISION))
            q_tile = _load_tile(q + (base + SHIFT * H) * K, row, key, stride, rows - SHIFT, K)
            k_tile = _load_tile(k + base * K, row, key, stride, rows, K)
            read, write = (q_tile * factor).to(LIKE), (k_tile * factor).to(LIKE)
            products = tl.dot(read, tl.trans(write), input_precision=PRECISION)
            found += tl.where(_across(row, column, level, APART), products, 0.0)
    if WHOLE:
        _store_tile(weights + base * C, found * scale, row, column, H * C, rows, C)
    else:
        _store_triangle(weights, found * scale, (batch * tl.cdiv(T, C) + chunk) * H + head, row, column)


@triton.jit
def _head_weights_kernel(
    q, k, sums, signs, weights, scale, T, H, K,
    APART: tl.constexpr, BEFORE: tl.constexpr, STRICT: tl.constexpr, WHOLE: tl.constexpr, SIGNED: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One decay for each head, whose `sums` are there: A[i,j] = (q_i . k_j) 2^(i <- j) [B, N, H, pairs], or [B, T, H, C] if
    WHOLE. STRICT: row i has the q of the next."""
    plane, chunk = tl.program_id(0), tl.program_id(1)
    batch, head = (plane // H).to(tl.int64), plane % H
    row, column = tl.arange(0, C), tl.arange(0, C)
    base, place = (batch * T + chunk * C) * H + head, (batch * tl.cdiv(T, C) + chunk) * H + head
    rows = T - chunk * C
    SHIFT: tl.constexpr = 1 if STRICT else 0
    found = tl.zeros([C, C], tl.float32)
    for first in range(0, K, BK):
        key = first + tl.arange(0, BK)
        q_tile = _load_tile(q + (base + SHIFT * H) * K, row, key, H * K, rows - SHIFT, K)
        k_tile = _load_tile(k + base * K, row, key, H * K, rows, K)
        found = tl.dot(q_tile, tl.trans(k_tile), found, input_precision=PRECISION)
    found *= _head_factors(sums, place, row, column, APART, BEFORE) * scale
    if SIGNED:
        found *= _signs_of(signs, base, row, rows, H, SIGNED)[:, None] * _signs_of(signs, base, column, rows, H, SIGNED)[None, :]
    if WHOLE:
        _store_tile(weights + base * C, found, row, column, H * C, rows, C)
    else:
        _store_triangle(weights, found, place, row, column)


@triton.jit
def _states_kernel(
    left, right, decay, signs, choices, start, states, final, table, scale, T, H, K, V, EVERY,
    by_batch, by_head, by_key, by_value,
    BY_HEAD: tl.constexpr, TOTALS: tl.constexpr, SIGNED: tl.constexpr, REVERSE: tl.constexpr, HAS_START: tl.constexpr,
    PACKED: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The state that enters every EVERY-th chunk, and the last: S <- total S + left^T right, chunk after chunk.

    left [B, T, H, K], right [B, T, H, V], states [B, N / EVERY, H, K, V], start and final [B, H, K, V] in float32, of
    which start has the strides by_batch to by_value. `decay` holds g [B, T, H, K], with BY_HEAD the sums of
    `_head_sums_kernel`; with TOTALS left is decayed already and it holds what whole chunks leave [B, N, H, K]. REVERSE is
    the adjoint: from the last chunk to the first, left the reads and right the outputs' gradients, and the states those
    that leave the last of EVERY chunks.
    PACKED: start and final are of the sequences whose chunks `table` [N + 1] bounds, one behind the other.
    """
    value, key = tl.program_id(1) * BV + tl.arange(0, BV), tl.program_id(2) * BK + tl.arange(0, BK)
    plane, head = tl.program_id(0).to(tl.int64), tl.program_id(0) % H
    batch = plane // H
    row = tl.arange(0, C)
    count = tl.cdiv(T, C)
    inside = (key < K)[:, None] & (value < V)[None, :]
    corner = key[:, None] * V + value[None, :]
    state = tl.zeros([BK, BV], tl.float32)
    if HAS_START:
        state = _load_start(start, batch, head, key, value, by_batch, by_head, by_key, by_value, K, V)
    batch, begin, end = _chunks_of(table, batch, count, PACKED)
    for step in range(end - begin):
        chunk = begin + step
        if REVERSE:
            chunk = end - 1 - step
            kept = tl.where(((chunk + 1) % EVERY == 0) | (step == 0), K, 0)
        else:
            kept = tl.where(chunk % EVERY == 0, K, 0)
        place = ((batch * tl.cdiv(count, EVERY) + chunk // EVERY) * H + head) * K * V
        mask = (key < kept)[:, None] & (value < V)[None, :]
        tl.store(states + place + corner, state.to(states.dtype.element_ty), mask=mask)
        base = (batch * T + chunk * C) * H + head
        rows = T - chunk * C
        left_tile = _load_tile(left + base * K, row, key, H * K, rows, K)
        right_tile = _load_tile(right + base * V, row, value, H * V, rows, V)
        if BY_HEAD:
            reads, factor, total = _head_decays(decay, (batch * count + chunk) * H + head, row, 0, False)
            if REVERSE:
                factor = reads * scale
            factor *= _signs_of(signs, base, row, rows, H, SIGNED)
            # Not into left, which goes into the product as it comes from memory.
            right_tile = (right_tile * factor[:, None]).to(right.dtype.element_ty)
            state *= total
        elif TOTALS:
            place = ((batch * count + chunk) * H + head) * K + key
            state *= tl.load(decay + place, mask=key < K, other=0)[:, None]
        else:
            gate = _gates_of(_load_tile(decay + base * K, row, key, H * K, rows, K))
            if REVERSE:
                factor = tl.exp2(_sums(choices, LEVELS, gate, C, PRECISION)) * scale
            else:
                factor = tl.exp2(_sums(choices, LEVELS + 1, gate, C, PRECISION))
            left_tile = (left_tile * factor).to(left.dtype.element_ty)
            state *= tl.exp2(tl.sum(gate, 0))[:, None]
        state = tl.dot(tl.trans(left_tile), right_tile, state, input_precision=PRECISION)
    tl.store(final + plane * K * V + corner, state, mask=inside)


@triton.jit
def _weights_adjoint_kernel(
    v, d_out, d_weights, scale, T, H, V, C: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr
):
    """d_A = d_o v^T for one chunk, [B, N, H, pairs]."""
    plane, chunk = tl.program_id(0), tl.program_id(1)
    batch, head = (plane // H).to(tl.int64), plane % H
    row, column = tl.arange(0, C), tl.arange(0, C)
    base = (batch * T + chunk * C) * H + head
    rows = T - chunk * C
    found = tl.zeros([C, C], tl.float32)
    for first in range(0, V, BV):
        value = first + tl.arange(0, BV)
        v_tile = _load_tile(v + base * V, row, value, H * V, rows, V)
        d_tile = _load_tile(d_out + base * V, row, value, H * V, rows, V)
        found = tl.dot(d_tile, tl.trans(v_tile), found, input_precision=PRECISION)
    _store_triangle(d_weights, found * scale, (batch * tl.cdiv(T, C) + chunk) * H + head, row, column)


@triton.jit
def _across_adjoint(
    v, d_out, states, d_states, base, row, rows, key, H, K, V,
    WRITES: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a chunk's reads and, with WRITES, of its writes [C, BK] and the logarithm of its total over that [BK]."""
    d_reads, d_writes = tl.zeros([C, BK], tl.float32), tl.zeros([C, BK], tl.float32)
    d_total = tl.zeros([BK], tl.float32)
    for first in range(0, V, BV):
        value = first + tl.arange(0, BV)
        d_tile = _load_tile(d_out + base * V, row, value, H * V, rows, V)
        state = _load_tile(states, key, value, V, K, V)
        d_reads = tl.dot(d_tile, tl.trans(state.to(d_tile.dtype)), d_reads, input_precision=PRECISION)
        if WRITES:
            v_tile = _load_tile(v + base * V, row, value, H * V, rows, V)
            d_state = _load_tile(d_states, key, value, V, K, V)
            d_writes = tl.dot(v_tile, tl.trans(d_state.to(v_tile.dtype)), d_writes, input_precision=PRECISION)
            d_total += tl.sum(state.to(tl.float32) * d_state.to(tl.float32), 1)
    return d_reads, d_writes, d_total


@triton.jit
def _rows_adjoint_kernel(
    q, k, v, g, choices, d_out, d_weights, states, d_states, d_q, d_k, d_g, scale, T, H, K, V,
    APART: tl.constexpr, BEFORE: tl.constexpr, WRITES: tl.constexpr,
    C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One decay for each key: gradients of q, k and g in one chunk, BK keys at a time.

    Without WRITES those of k and g are added to what is there: another read of the same writes has found that.
    """
    plane, chunk = tl.program_id(0), tl.program_id(2)
    batch, head = (plane // H).to(tl.int64), plane % H
    key = tl.program_id(1) * BK + tl.arange(0, BK)
    LIKE: tl.constexpr = q.dtype.element_ty
    row, column = tl.arange(0, C), tl.arange(0, C)
    base = (batch * T + chunk * C) * H + head
    rows, stride = T - chunk * C, H * K
    place = (batch * tl.cdiv(T, C) + chunk) * H + head
    corner = place * K * V
    d_reads, d_writes, d_total = _across_adjoint(
        v, d_out, states + corner, d_states + corner, base, row, rows, key, H, K, V, WRITES, C, BK, BV, PRECISION
    )
    q_tile = _load_tile(q + base * K, row, key, stride, rows, K)
    k_tile = _load_tile(k + base * K, row, key, stride, rows, K)
    gate = _gates_of(_load_tile(g + base * K, row, key, stride, rows, K))
    choices_back = choices + (LEVELS + 2) * C * C
    # Reads of the state that entered straddle every decay up to their row, writes that leave every decay after theirs.
    d_q_tile = d_reads * tl.exp2(_sums(choices, LEVELS, gate, C, PRECISION)) * scale
    d_gate = _sums(choices_back, LEVELS, q_tile * d_q_tile, C, PRECISION)
    if WRITES:
        d_k_tile = d_writes * tl.exp2(_sums(choices, LEVELS + 1, gate, C, PRECISION))
        d_gate += _sums(choices_back, LEVELS + 1, k_tile * d_k_tile, C, PRECISION)
        d_gate += (d_total * tl.exp2(tl.sum(gate, 0)))[None, :]
    else:
        d_k_tile = _load_tile(d_k + base * K, row, key, stride, rows, K).to(tl.float32)
        d_gate += _load_tile(d_g + base * K, row, key, stride, rows, K).to(tl.float32)
    small = 0
    if not BEFORE:
        small, sums = _middle_sums(choices, gate, LEVELS, C, PRECISION)
        inner = tl.where(_within(row, column, small, APART), _load_pairs(d_weights, place, row, column), 0.0)
        factor, inverse = tl.exp2(sums), tl.exp2(-sums)
        d_read = tl.dot(inner, (k_tile * inverse).to(LIKE), input_precision=PRECISION) * factor
        d_write = tl.dot(tl.trans(inner), (q_tile * factor).to(LIKE), input_precision=PRECISION) * inverse
        d_q_tile += d_read
        d_k_tile += d_write
        d_gate += _sums(choices, 3 * LEVELS + 5 + small, q_tile * d_read - k_tile * d_write, C, PRECISION)
    for level in tl.range(small, LEVELS, disable_licm=True):  # what would be hoisted is spilled
        factor = tl.exp2(_sums(choices, level, gate, C, PRECISION))
        read, write = (q_tile * factor).to(LIKE), (k_tile * factor).to(LIKE)
        inside = _across(row, column, level, APART)
        inner = tl.where(inside, _load_pairs(d_weights, place, row, column), 0.0)
        d_read = tl.dot(inner, write, input_precision=PRECISION) * factor
        d_write = tl.dot(tl.trans(inner), read, input_precision=PRECISION) * factor
        d_q_tile += d_read
        d_k_tile += d_write
        # A row is read or written at one level, never both: the other gradient is 0.
        d_gate += _sums(choices_back, level, q_tile * d_read + k_tile * d_write, C, PRECISION)
    _store_tile(d_q + base * K, d_q_tile, row, key, stride, rows, K)
    _store_tile(d_k + base * K, d_k_tile, row, key, stride, rows, K)
    _store_tile(d_g + base * K, d_gate, row, key, stride, rows, K)


@triton.jit
def _head_read_adjoint(
    q, k_tile, v, sums, signs, choices, weights, d_out, states, d_q, d_k_tile, d_gate, scale, base, place, rows, row, key,
    H, K, V, GATE: tl.constexpr, SIGNED: tl.constexpr, KEPT: tl.constexpr, APART: tl.constexpr, BEFORE: tl.constexpr,
    C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One decay for each head: stores the gradient of a chunk's reads q, and adds what they give those of k and g."""
    LIKE: tl.constexpr = q.dtype.element_ty
    SHIFT: tl.constexpr = APART if BEFORE else 0
    column, stride = tl.arange(0, C), H * K
    inner = tl.zeros([C, C], tl.float32)
    for first in tl.range(0, V, BV, disable_licm=True):
        value = first + tl.arange(0, BV)
        d_tile = _load_tile(d_out + base * V, row, value, H * V, rows, V)
        v_tile = _load_tile(v + base * V, row, value, H * V, rows, V)
        inner = tl.dot(d_tile, tl.trans(v_tile), inner, input_precision=PRECISION)
    q_tile = _load_tile(q + base * K, row, key, stride, rows, K)
    sign = _signs_of(signs, base, row, rows, H, SIGNED)
    factors = _head_factors(sums, place, row, column, APART, BEFORE) * scale
    if SIGNED:
        factors *= sign[:, None] * _signs_of(signs, base, column, rows, H, SIGNED)[None, :]
    met = tl.zeros([C], tl.float32)  # gradients of what reads meet at a row
    if GATE:
        choice, narrow = choices + (2 * LEVELS + 2) * C * C, LIKE == tl.bfloat16
        if not KEPT:
            pairs = inner * factors * tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
            met += _straddling_sums(choice, pairs, row, column, SHIFT, narrow)
        elif tl.program_id(1) == 0:  # the weights are of all keys together
            pairs = inner * _load_pairs(weights, place, row, column)
            met += _straddling_sums(choice, pairs, row, column, SHIFT, narrow)
    inner = (inner * factors).to(LIKE)
    d_k_tile = tl.dot(tl.trans(inner), q_tile, d_k_tile, input_precision=PRECISION)
    d_q_tile = tl.zeros([C, BK], tl.float32)
    for first in tl.range(0, V, BV, disable_licm=True):  # once more: with the loop before there were too many registers
        value = first + tl.arange(0, BV)
        d_tile = _load_tile(d_out + base * V, row, value, H * V, rows, V)
        state = _load_tile(states, key, value, V, K, V)
        d_q_tile = tl.dot(d_tile, tl.trans(state.to(LIKE)), d_q_tile, input_precision=PRECISION)
    d_q_tile *= (_head_decays(sums, place, row, APART, BEFORE)[0] * sign * scale)[:, None]
    if GATE:
        met += tl.cumsum(tl.sum(q_tile * d_q_tile, 1), 0, reverse=True)
        if BEFORE:  # a row meets the decay of a step before
            met = tl.sum(tl.where(column[None, :] == row[:, None] + SHIFT, met[None, :], 0.0), 1)
        d_gate += met
    d_q_tile = tl.dot(inner, k_tile, d_q_tile, input_precision=PRECISION)
    _store_tile(d_q + base * K, d_q_tile, row, key, stride, rows, K)
    return d_k_tile, d_gate


@triton.jit
def _head_adjoint_kernel(
    q, k, v, sums, signs, choices, weights, d_out, asked, d_asked, states, d_states, d_q, d_k, d_g, d_ask, scale, factor,
    B, T, H, K, V,
    GATE: tl.constexpr, SIGNED: tl.constexpr, APART: tl.constexpr, BEFORE: tl.constexpr, TWICE: tl.constexpr,
    KEPT: tl.constexpr,
    C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One decay for each head: gradients of q and k in one chunk, and the part of g's that BK keys make.

    d_g [K / BK, B, T, H], summed by the caller in that order. TWICE: the state is read by `asked`, too, after its step, which
    gave outputs with the gradients `d_asked` and has the gradient `d_ask`; `factor` is its scale.
    KEPT: the weights of the pairs of q, or of `asked`, are there.
    """
    plane, chunk = tl.program_id(0), tl.program_id(2)
    batch, head = (plane // H).to(tl.int64), plane % H
    key = tl.program_id(1) * BK + tl.arange(0, BK)
    row, column = tl.arange(0, C), tl.arange(0, C)
    base, place = (batch * T + chunk * C) * H + head, (batch * tl.cdiv(T, C) + chunk) * H + head
    rows = T - chunk * C
    states += place * K * V
    d_states += place * K * V
    d_k_tile, d_total = tl.zeros([C, BK], tl.float32), tl.zeros([BK], tl.float32)
    for first in tl.range(0, V, BV, disable_licm=True):
        value = first + tl.arange(0, BV)
        v_tile = _load_tile(v + base * V, row, value, H * V, rows, V)
        d_state = _load_tile(d_states, key, value, V, K, V)
        d_k_tile = tl.dot(v_tile, tl.trans(d_state.to(v_tile.dtype)), d_k_tile, input_precision=PRECISION)
        if GATE:
            state = _load_tile(states, key, value, V, K, V)
            d_total += tl.sum(state.to(tl.float32) * d_state.to(tl.float32), 1)
    _, writes, total = _head_decays(sums, place, row, 0, False)
    d_k_tile *= (writes * _signs_of(signs, base, row, rows, H, SIGNED))[:, None]
    k_tile = _load_tile(k + base * K, row, key, H * K, rows, K)
    d_gate = tl.zeros([C], tl.float32)
    if GATE:
        write = tl.sum(k_tile * d_k_tile, 1)
        d_gate += tl.sum(tl.where(column[None, :] < row[:, None], write[None, :], 0.0), 1)
        d_gate += tl.sum(d_total, 0) * total
    d_k_tile, d_gate = _head_read_adjoint(
        q, k_tile, v, sums, signs, choices, weights, d_out, states, d_q, d_k_tile, d_gate, scale, base, place, rows, row, key,
        H, K, V, GATE, SIGNED, KEPT and not TWICE, APART, BEFORE, C, LEVELS, BK, BV, PRECISION,
    )  # fmt: skip
    if TWICE:
        d_k_tile, d_gate = _head_read_adjoint(
            asked, k_tile, v, sums, signs, choices, weights, d_asked, states, d_ask, d_k_tile, d_gate, factor, base, place,
            rows, row, key, H, K, V, GATE, SIGNED, KEPT, 0, False, C, LEVELS, BK, BV, PRECISION,
        )  # fmt: skip
    _store_tile(d_k + base * K, d_k_tile, row, key, H * K, rows, K)
    if GATE:
        part = tl.program_id(1).to(tl.int64) * B * T * H
        tl.store(d_g + part + base + row * H, d_gate, mask=row < rows)
