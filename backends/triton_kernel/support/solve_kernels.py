"""Kernels of the feedback through a decaying state: y = x + w S, S <- a S + u^T y, chunk after chunk.

Inside a chunk (1 - G) y = x + W S, with G the pairs of reads w and writes u that count, W the reads decayed from the
chunk's start and S the state that enters. X = (1 - G)^-1 is found once: blocks of 16 rows by substitution, then halves
merged, always in float32. Then y = X (x + W S) and S <- total S + U^T y, and in the adjoint, from the last chunk to the
first, r = X^T (d_y + U d_S) and d_S <- total d_S + W^T r; r is the gradient of x, and what w, u and the decays get is
that of linear attention with values y whose outputs' gradients are r.
"""

import triton
import triton.language as tl

from .decay_kernels import _chunks_of, _head_decays, _load_pairs, _load_tile, _store_tile


@triton.jit
def _inverse_half(pairs, blocks, row, column, stride, rows, PRECISION: tl.constexpr):
    """(1 - G)^-1 for 32 rows of G, from those of its two blocks of 16 along the diagonal."""
    between = _load_tile(pairs, row, column, stride, rows, 32)
    between = tl.where((row >= 16)[:, None] & (column < 16)[None, :], between, 0.0)
    between = tl.dot(between, blocks, input_precision=PRECISION)
    return blocks + tl.dot(blocks, between, input_precision=PRECISION)


@triton.jit
def _inverse_kernel(pairs, inverse, T, H, C: tl.constexpr, PRECISION: tl.constexpr):
    """X = (1 - G)^-1 of each chunk of 64 rows, [B, T, H, C]; G is strictly lower triangular, in float32."""
    plane, chunk = tl.program_id(0), tl.program_id(1)
    batch, head = (plane // H).to(tl.int64), plane % H
    base, stride, rows = ((batch * T + chunk * C) * H + head) * C, H * C, T - chunk * C
    pairs += base
    block, own = tl.arange(0, 4), tl.arange(0, 16)
    found = tl.zeros([4, 16, 16], tl.float32) + tl.where(own[:, None] == own[None, :], 1.0, 0.0)[None, :, :]
    for i in tl.static_range(1, 16):  # row i of all blocks of 16: the rows above it, as G's row i weighs them
        at = block * 16 + i
        weight = tl.load(pairs + (at * stride + block * 16)[:, None] + own[None, :], mask=(at < rows)[:, None], other=0)
        added = tl.sum(weight[:, :, None] * found, 1)
        found += tl.where((own == i)[None, :, None], added[:, None, :], 0.0)
    pair = tl.arange(0, 2)  # two of them each along the diagonal of a half, [half, row, column]
    halves = tl.reshape(found, [2, 2, 16, 1, 16])
    halves = tl.where((pair[:, None] == pair[None, :])[None, :, None, :, None], halves, 0.0)
    first, second = tl.split(tl.permute(tl.reshape(halves, [2, 32, 32]), [1, 2, 0]))
    row, column = tl.arange(0, 32), tl.arange(0, 32)
    lower = 32 * stride + 32
    inverse += base
    first = _inverse_half(pairs, first, row, column, stride, rows, PRECISION)
    _store_tile(inverse, first, row, column, stride, rows, 32)
    _store_tile(inverse + 32, tl.zeros([32, 32], tl.float32), row, column, stride, rows, 32)
    second = _inverse_half(pairs + lower, second, row, column, stride, rows - 32, PRECISION)
    _store_tile(inverse + lower, second, row, column, stride, rows - 32, 32)
    between = _load_tile(pairs + 32 * stride, row, column, stride, rows - 32, 32)
    between = tl.dot(second, tl.dot(between, first, input_precision=PRECISION), input_precision=PRECISION)
    _store_tile(inverse + 32 * stride, between, row, column, stride, rows - 32, 32)


@triton.jit
def _solve_kernel(
    w, u, inverse, x, decay, q, d_out, start, states, final, y, table, scale, T, H, K, V,
    BY_HEAD: tl.constexpr, APART: tl.constexpr, BEFORE: tl.constexpr, REVERSE: tl.constexpr, READ: tl.constexpr,
    HAS_START: tl.constexpr, PACKED: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The unknowns y [B, T, H, V] and the state that enters every chunk [B, N, H, K, V], chunk after chunk.

    With one decay for each key, w holds the reads and u the writes, decayed already, and `decay` the chunks' totals; with
    BY_HEAD it has the sums of `_head_sums_kernel`. REVERSE is the adjoint: x the gradient of y, y that of x, the states
    those that leave; with READ the state is read by q, too, which gave outputs with the gradients `d_out`. All keys are in
    one tile.
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
        place = (batch * count + chunk) * H + head
        tl.store(states + place * K * V + corner, state.to(states.dtype.element_ty), mask=inside)
        base = (batch * T + chunk * C) * H + head
        rows = T - chunk * C
        w_tile = _load_tile(w + base * K, row, key, H * K, rows, K)
        u_tile = _load_tile(u + base * K, row, key, H * K, rows, K)
        x_tile = _load_tile(x + base * V, row, value, H * V, rows, V).to(tl.float32)
        solved = _load_tile(inverse + base * C, row, column, H * C, rows, C)
        if BY_HEAD:
            reads, writes, total = _head_decays(decay, place, row, APART, BEFORE)
        else:
            total = tl.load(decay + place * K + key, mask=key < K, other=0)[:, None]
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
                d_tile = (d_tile * (_head_decays(decay, place, row, 0, False)[0] * scale)[:, None]).to(LIKE)
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
        place = (batch * count + chunk) * H + head
        base = (batch * T + chunk * C) * H + head
        rows = T - chunk * C
        if BY_HEAD:
            reads, writes, total = _head_decays(decay, place, row, APART, BEFORE)
            if REVERSE:
                reads, writes = writes, reads
        answer = tl.zeros([C, BV], tl.float32)
        for slab in tl.static_range(SLABS):
            key = slab * BK + lane
            _store_tile(states + place * K * V, held[slab], key, value, V, K, V)
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
                d_tile = (d_tile * (_head_decays(decay, place, row, 0, False)[0] * scale)[:, None]).to(LIKE)
        after = ()
        for slab in tl.static_range(SLABS):
            key = slab * BK + lane
            if not BY_HEAD:
                total = tl.load(decay + place * K + key, mask=key < K, other=0)[:, None]
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
    q, v, sums, weights, states, out, scale, T, H, K, V,
    BY_HEAD: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """o = A y + reads S for one chunk, y in v's place. With one decay for each key, q holds the reads, decayed already."""
    blocks = tl.cdiv(V, BV)
    plane, chunk = tl.program_id(0) // blocks, tl.program_id(1)
    batch, head = (plane // H).to(tl.int64), plane % H
    value = tl.program_id(0) % blocks * BV + tl.arange(0, BV)
    row, column = tl.arange(0, C), tl.arange(0, C)
    base, place = (batch * T + chunk * C) * H + head, (batch * tl.cdiv(T, C) + chunk) * H + head
    rows = T - chunk * C
    states += place * K * V
    found = tl.zeros([C, BV], tl.float32)
    for first in range(0, K, BK):
        key = first + tl.arange(0, BK)
        q_tile = _load_tile(q + base * K, row, key, H * K, rows, K)
        state = _load_tile(states, key, value, V, K, V)
        found = tl.dot(q_tile, state.to(q_tile.dtype), found, input_precision=PRECISION)
    if BY_HEAD:
        found *= (_head_decays(sums, place, row, 0, False)[0] * scale)[:, None]
    v_tile = _load_tile(v + base * V, row, value, H * V, rows, V)
    found = tl.dot(_load_pairs(weights, place, row, column), v_tile, found, input_precision=PRECISION)
    _store_tile(out + base * V, found, row, value, H * V, rows, V)


@triton.jit
def _values_adjoint_kernel(
    d_out, weights, d_v, T, H, V, C: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr
):
    """d_v = A^T d_o for one chunk."""
    blocks = tl.cdiv(V, BV)
    plane, chunk = tl.program_id(0) // blocks, tl.program_id(1)
    batch, head = (plane // H).to(tl.int64), plane % H
    value = tl.program_id(0) % blocks * BV + tl.arange(0, BV)
    row, column = tl.arange(0, C), tl.arange(0, C)
    base, rows = (batch * T + chunk * C) * H + head, T - chunk * C
    weight = _load_pairs(weights, (batch * tl.cdiv(T, C) + chunk) * H + head, row, column)
    d_tile = _load_tile(d_out + base * V, row, value, H * V, rows, V)
    found = tl.dot(tl.trans(weight), d_tile, input_precision=PRECISION)
    _store_tile(d_v + base * V, found, row, value, H * V, rows, V)
