"""Kernels of the feedback through a decaying state: y = x + w S, S <- a S + u^T y, chunk after chunk.

Inside a chunk (1 - G) y = x + W S, with G the pairs of reads w and writes u that count, W the reads decayed from the
chunk's start and S the state that enters. X = (1 - G)^-1 is found once: blocks of 16 rows by substitution, then halves
merged, always in float32. Then y = X (x + W S) and S <- total S + U^T y, and in the adjoint, from the last chunk to the
first, r = X^T (d_y + U d_S) and d_S <- total d_S + W^T r; r is the gradient of x, and what w, u and the decays get is
that of linear attention with values y whose outputs' gradients are r.
"""

import triton
import triton.language as tl

from .decay_kernels import (
    _chunks_of,
    _head_factors,
    _load_pairs,
    _load_tile,
    _read_gates,
    _store_tile,
    _write_gates,
)


@triton.jit
def _head_pairs_kernel(
    w, u, g, pairs, T, H, K,
    APART: tl.constexpr, BEFORE: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One decay for each head: G[i,j] = (w_i . u_j) 2^(i <- j) in float32. w, u [B, T, H, K], pairs [B, T, H, C]."""
    plane, chunk = tl.program_id(0), tl.program_id(1)
    batch, head = (plane // H).to(tl.int64), plane % H
    row, column = tl.arange(0, C), tl.arange(0, C)
    base = (batch * T + chunk * C) * H + head
    rows = T - chunk * C
    found = tl.zeros([C, C], tl.float32)
    for first in range(0, K, BK):
        key = first + tl.arange(0, BK)
        w_tile = _load_tile(w + base * K, row, key, H * K, rows, K)
        u_tile = _load_tile(u + base * K, row, key, H * K, rows, K)
        found = tl.dot(w_tile, tl.trans(u_tile), found, input_precision=PRECISION)
    met, gate = _read_gates(g, base, row, rows, H, APART, BEFORE), _read_gates(g, base, row, rows, H, 0, False)
    found *= _head_factors(met, gate, row, column, APART)
    _store_tile(pairs + base * C, found, row, column, H * C, rows, C)


@triton.jit
def _inverse_half(pairs, row, column, stride, rows, PRECISION: tl.constexpr):
    """(1 - G)^-1 for 32 rows of G, from two blocks of 16."""
    within = (row // 16)[:, None] == (column // 16)[None, :]
    found = tl.where(row[:, None] == column[None, :], 1.0, 0.0)
    for i in range(1, 16):  # row i of both blocks: the rows above it, as G's row i weighs them
        at = row // 16 * 16 + i
        weight = tl.load(pairs + at * stride + row, mask=at < rows, other=0)
        added = tl.sum(weight[:, None] * found, 0)
        found += tl.where(within & ((row % 16) == i)[:, None], added[None, :], 0.0)
    between = _load_tile(pairs, row, column, stride, rows, 32)
    between = tl.where((row >= 16)[:, None] & (column < 16)[None, :], between, 0.0)
    between = tl.dot(between, found, input_precision=PRECISION)
    return found + tl.dot(found, between, input_precision=PRECISION)


@triton.jit
def _inverse_kernel(pairs, inverse, T, H, C: tl.constexpr, PRECISION: tl.constexpr):
    """X = (1 - G)^-1 of each chunk, [B, T, H, C], from two halves; G is strictly lower triangular, in float32."""
    plane, chunk = tl.program_id(0), tl.program_id(1)
    batch, head = (plane // H).to(tl.int64), plane % H
    row, column = tl.arange(0, 32), tl.arange(0, 32)
    base = ((batch * T + chunk * C) * H + head) * C
    rows, stride = T - chunk * C, H * C
    lower = 32 * stride + 32
    first = _inverse_half(pairs + base, row, column, stride, rows, PRECISION)
    second = _inverse_half(pairs + base + lower, row, column, stride, rows - 32, PRECISION)
    between = _load_tile(pairs + base + 32 * stride, row, column, stride, rows - 32, 32)
    between = tl.dot(between, first, input_precision=PRECISION)
    between = tl.dot(second, between, input_precision=PRECISION)
    inverse += base
    _store_tile(inverse, first, row, column, stride, rows, 32)
    _store_tile(inverse + 32, tl.zeros([32, 32], tl.float32), row, column, stride, rows, 32)
    _store_tile(inverse + 32 * stride, between, row, column, stride, rows - 32, 32)
    _store_tile(inverse + lower, second, row, column, stride, rows - 32, 32)


@triton.jit
def _chunk_factors(decay, base, row, rows, H, APART: tl.constexpr, BEFORE: tl.constexpr):
    """One decay for each head: what it leaves of what reads meet [C], of writes at the chunk's end [C], and of the state."""
    reads = tl.exp2(tl.cumsum(_read_gates(decay, base, row, rows, H, APART, BEFORE), 0))
    writes = tl.exp2(tl.cumsum(_write_gates(decay, base, row, rows, H), 0, reverse=True))
    total = tl.exp2(tl.sum(_read_gates(decay, base, row, rows, H, 0, False), 0))
    return reads, writes, total


@triton.jit
def _solve_kernel(
    w, u, inverse, x, decay, q, d_out, start, states, final, y, table, scale, T, H, K, V,
    BY_HEAD: tl.constexpr, APART: tl.constexpr, BEFORE: tl.constexpr, REVERSE: tl.constexpr, READ: tl.constexpr,
    HAS_START: tl.constexpr, PACKED: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The unknowns y [B, T, H, V] and the state that enters every chunk [B, N, H, K, V], chunk after chunk.

    With one decay for each key, w holds the reads and u the writes, decayed already, and `decay` the chunks' totals; with
    BY_HEAD it is g [B, T, H]. REVERSE is the adjoint: x the gradient of y, y that of x, the states those that leave; with
    READ the state is read by q, too, which gave outputs with the gradients `d_out`. All keys are in one tile.
    """
    value, key = tl.program_id(1) * BV + tl.arange(0, BV), tl.arange(0, BK)
    plane, head = tl.program_id(0).to(tl.int64), tl.program_id(0) % H
    batch = plane // H
    LIKE: tl.constexpr = w.dtype.element_ty
    row, column = tl.arange(0, C), tl.arange(0, C)
    count = tl.cdiv(T, C)
    inside = (key < K)[:, None] & (value < V)[None, :]
    corner = key[:, None] * V + value[None, :]
    state = tl.zeros([BK, BV], tl.float32)
    if HAS_START:
        state = tl.load(start + plane * K * V + corner, mask=inside, other=0).to(tl.float32)
    batch, begin, end = _chunks_of(table, batch, count, PACKED)
    for step in range(end - begin):
        chunk = begin + step
        if REVERSE:
            chunk = end - 1 - step
        place = ((batch * count + chunk) * H + head) * K
        tl.store(states + place * V + corner, state.to(states.dtype.element_ty), mask=inside)
        base = (batch * T + chunk * C) * H + head
        rows = T - chunk * C
        w_tile = _load_tile(w + base * K, row, key, H * K, rows, K)
        u_tile = _load_tile(u + base * K, row, key, H * K, rows, K)
        x_tile = _load_tile(x + base * V, row, value, H * V, rows, V).to(tl.float32)
        solved = _load_tile(inverse + base * C, row, column, H * C, rows, C)
        if BY_HEAD:
            reads, writes, total = _chunk_factors(decay, base, row, rows, H, APART, BEFORE)
        else:
            total = tl.load(decay + place + key, mask=key < K, other=0)[:, None]
        if REVERSE:
            w_tile, u_tile = u_tile, w_tile
        answer = tl.dot(w_tile, state.to(LIKE), input_precision=PRECISION)
        if BY_HEAD:
            if REVERSE:
                reads, writes = writes, reads
            answer *= reads[:, None]
        if REVERSE:
            solved = tl.trans(solved)
        found = tl.dot(solved, (x_tile + answer).to(LIKE), input_precision=PRECISION)
        _store_tile(y + base * V, found, row, value, H * V, rows, V)
        if BY_HEAD:
            found *= writes[:, None]
        state = tl.dot(tl.trans(u_tile), found.to(LIKE), state * total, input_precision=PRECISION)
        if READ:
            q_tile = _load_tile(q + base * K, row, key, H * K, rows, K)
            d_tile = _load_tile(d_out + base * V, row, value, H * V, rows, V)
            if BY_HEAD:
                seen = tl.exp2(tl.cumsum(_read_gates(decay, base, row, rows, H, 0, False), 0)) * scale
                d_tile = (d_tile * seen[:, None]).to(LIKE)
            state = tl.dot(tl.trans(q_tile), d_tile, state, input_precision=PRECISION)
    tl.store(final + plane * K * V + corner, state, mask=inside)


@triton.jit
def _solve_slabs_kernel(
    w, u, inverse, x, decay, q, d_out, start, states, final, y, table, scale, T, H, K, V,
    BY_HEAD: tl.constexpr, APART: tl.constexpr, BEFORE: tl.constexpr, REVERSE: tl.constexpr, READ: tl.constexpr,
    HAS_START: tl.constexpr, PACKED: tl.constexpr, SLABS: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The same of more keys than one tile has: a program holds SLABS tiles of BK keys in registers.

    What the chunk asks of the state is a sum over the slabs, found before any of them changes; their rows are loaded one
    slab after the other, first those that ask and then those that tell.
    """
    value, lane = tl.program_id(1) * BV + tl.arange(0, BV), tl.arange(0, BK)
    plane, head = tl.program_id(0).to(tl.int64), tl.program_id(0) % H
    batch = plane // H
    LIKE: tl.constexpr = w.dtype.element_ty
    row, column = tl.arange(0, C), tl.arange(0, C)
    count = tl.cdiv(T, C)
    asks, tells = w, u
    if REVERSE:
        asks, tells = u, w
    held = ()
    for slab in tl.static_range(SLABS):
        state = tl.zeros([BK, BV], tl.float32)
        if HAS_START:
            state += _load_tile(start + plane * K * V, slab * BK + lane, value, V, K, V)
        held += (state,)
    batch, begin, end = _chunks_of(table, batch, count, PACKED)
    for step in range(end - begin):
        chunk = begin + step
        if REVERSE:
            chunk = end - 1 - step
        place = ((batch * count + chunk) * H + head) * K
        base = (batch * T + chunk * C) * H + head
        rows = T - chunk * C
        if BY_HEAD:
            reads, writes, total = _chunk_factors(decay, base, row, rows, H, APART, BEFORE)
            if REVERSE:
                reads, writes = writes, reads
        answer = tl.zeros([C, BV], tl.float32)
        for slab in tl.static_range(SLABS):
            key = slab * BK + lane
            _store_tile(states + place * V, held[slab], key, value, V, K, V)
            asked = _load_tile(asks + base * K, row, key, H * K, rows, K)
            answer = tl.dot(asked, held[slab].to(LIKE), answer, input_precision=PRECISION)
        if BY_HEAD:
            answer *= reads[:, None]
        solved = _load_tile(inverse + base * C, row, column, H * C, rows, C)
        if REVERSE:
            solved = tl.trans(solved)
        x_tile = _load_tile(x + base * V, row, value, H * V, rows, V).to(tl.float32)
        found = tl.dot(solved, (x_tile + answer).to(LIKE), input_precision=PRECISION)
        _store_tile(y + base * V, found, row, value, H * V, rows, V)
        if BY_HEAD:
            found *= writes[:, None]
        if READ:
            d_tile = _load_tile(d_out + base * V, row, value, H * V, rows, V)
            if BY_HEAD:
                seen = tl.exp2(tl.cumsum(_read_gates(decay, base, row, rows, H, 0, False), 0)) * scale
                d_tile = (d_tile * seen[:, None]).to(LIKE)
        after = ()
        for slab in tl.static_range(SLABS):
            key = slab * BK + lane
            if not BY_HEAD:
                total = tl.load(decay + place + key, mask=key < K, other=0)[:, None]
            told = _load_tile(tells + base * K, row, key, H * K, rows, K)
            state = tl.dot(tl.trans(told), found.to(LIKE), held[slab] * total, input_precision=PRECISION)
            if READ:
                q_tile = _load_tile(q + base * K, row, key, H * K, rows, K)
                state = tl.dot(tl.trans(q_tile), d_tile, state, input_precision=PRECISION)
            after += (state,)
        held = after
    for slab in tl.static_range(SLABS):
        _store_tile(final + plane * K * V, held[slab], slab * BK + lane, value, V, K, V)


@triton.jit
def _reads_kernel(
    q, k, v, g, weights, states, out, scale, T, H, K, V,
    BY_HEAD: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """o = A y + reads S for one chunk, y in v's place. With one decay for each key, q holds the reads and A is in `weights`."""
    blocks = tl.cdiv(V, BV)
    plane, chunk = tl.program_id(0) // blocks, tl.program_id(1)
    batch, head = (plane // H).to(tl.int64), plane % H
    value = tl.program_id(0) % blocks * BV + tl.arange(0, BV)
    row, column = tl.arange(0, C), tl.arange(0, C)
    base = (batch * T + chunk * C) * H + head
    rows = T - chunk * C
    states += ((batch * tl.cdiv(T, C) + chunk) * H + head) * K * V
    found = tl.zeros([C, BV], tl.float32)
    inner = tl.zeros([C, C], tl.float32)
    for first in range(0, K, BK):
        key = first + tl.arange(0, BK)
        q_tile = _load_tile(q + base * K, row, key, H * K, rows, K)
        state = _load_tile(states, key, value, V, K, V)
        found = tl.dot(q_tile, state.to(q_tile.dtype), found, input_precision=PRECISION)
        if BY_HEAD:
            k_tile = _load_tile(k + base * K, row, key, H * K, rows, K)
            inner = tl.dot(q_tile, tl.trans(k_tile), inner, input_precision=PRECISION)
    v_tile = _load_tile(v + base * V, row, value, H * V, rows, V)
    if BY_HEAD:
        gate = _read_gates(g, base, row, rows, H, 0, False)
        found *= (tl.exp2(tl.cumsum(gate, 0)) * scale)[:, None]
        factors = _head_factors(gate, gate, row, column, 0)
        weight = (inner * factors * scale).to(v_tile.dtype)
    else:
        weight = _load_pairs(weights, (batch * tl.cdiv(T, C) + chunk) * H + head, row, column)
    found = tl.dot(weight, v_tile, found, input_precision=PRECISION)
    _store_tile(out + base * V, found, row, value, H * V, rows, V)


@triton.jit
def _values_adjoint_kernel(
    q, k, d_out, g, weights, d_v, scale, T, H, K, V,
    BY_HEAD: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """d_v = A^T d_o for one chunk. With one decay for each key, A is in `weights`."""
    blocks = tl.cdiv(V, BV)
    plane, chunk = tl.program_id(0) // blocks, tl.program_id(1)
    batch, head = (plane // H).to(tl.int64), plane % H
    value = tl.program_id(0) % blocks * BV + tl.arange(0, BV)
    row, column = tl.arange(0, C), tl.arange(0, C)
    base = (batch * T + chunk * C) * H + head
    rows = T - chunk * C
    inner = tl.zeros([C, C], tl.float32)
    for first in range(0, K if BY_HEAD else 0, BK):
        key = first + tl.arange(0, BK)
        q_tile = _load_tile(q + base * K, row, key, H * K, rows, K)
        k_tile = _load_tile(k + base * K, row, key, H * K, rows, K)
        inner = tl.dot(q_tile, tl.trans(k_tile), inner, input_precision=PRECISION)
    d_tile = _load_tile(d_out + base * V, row, value, H * V, rows, V)
    if BY_HEAD:
        gate = _read_gates(g, base, row, rows, H, 0, False)
        factors = _head_factors(gate, gate, row, column, 0)
        weight = (inner * factors * scale).to(d_tile.dtype)
    else:
        weight = _load_pairs(weights, (batch * tl.cdiv(T, C) + chunk) * H + head, row, column)
    found = tl.dot(tl.trans(weight), d_tile, input_precision=PRECISION)
    _store_tile(d_v + base * V, found, row, value, H * V, rows, V)
