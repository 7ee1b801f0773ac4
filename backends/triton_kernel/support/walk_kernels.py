"""The kernel of a matrix state that walks through time in registers: each chunk is read from it and written to it.

A program has the keys and a few columns of the state of one head. It loads the rows of a chunk, reads the state that
entered, adds what the chunk's own rows give (A v) and takes the chunk into the state: no state goes to memory, and the
blocks of columns of one head, which read the same rows, are next to each other. Where heads and columns do not fill a
device, time is cut into groups of chunks, whose first states `_states_kernel` finds. In the adjoint the walk goes
backwards, with the gradients of the outputs in v's place: reads and writes change places, o becomes d_v, S becomes d_S.
"""

import triton
import triton.language as tl

from .decay_kernels import _gates_of, _head_decays, _load_pairs, _load_start, _load_tile, _signs_of, _store_tile, _sums


@triton.jit
def _walk_kernel(
    q, k, v, decay, signs, choices, weights, start, entering, out, states, final, table, scale, T, H, K, V, PER,
    by_batch, by_head, by_key, by_value,
    BY_HEAD: tl.constexpr, TOTALS: tl.constexpr, SIGNED: tl.constexpr, STRICT: tl.constexpr, REVERSE: tl.constexpr,
    HAS_START: tl.constexpr, CUT: tl.constexpr, PARTED: tl.constexpr, PACKED: tl.constexpr, SLABS: tl.constexpr,
    C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """o = A v + reads S, S <- total S + writes^T v, for a group of PER chunks; reversed o = A^T v + writes S and so on.

    q, k [B, T, H, K], v [B, T, H, V], A in `weights` [B, N, H, pairs], start (of any strides) and final [B, H, K, V].
    `decay` is g [B, T, H, K], with BY_HEAD the sums of `_head_sums_kernel`; with TOTALS q and k are reads and writes, and it
    is what whole chunks leave [B, N, H, K].
    A program's state is SLABS tiles of BK keys; with PARTED that is one of several parts: out [parts, B, T, H, V].
    With CUT there are several groups, and `entering` [B, groups, H, K, V] holds the states on the side where each begins.
    REVERSE keeps the state that leaves every chunk, [B, N, H, K, V]. STRICT: a row reads before its step, which is after
    the step of the row before: a chunk has the outputs of the rows one later, and their q. The first row is the caller's.
    PACKED: start and final are of the sequences whose chunks `table` [N + 1] bounds, one behind the other.
    """
    blocks, parts = tl.cdiv(V, BV), tl.cdiv(K, SLABS * BK)
    own, number = tl.program_id(0), tl.program_id(1)
    part, plane = own % parts, (own // (parts * blocks)).to(tl.int64)
    batch, head = plane // H, plane % H
    value = own // parts % blocks * BV + tl.arange(0, BV)
    row, column = tl.arange(0, C), tl.arange(0, C)
    LIKE: tl.constexpr = q.dtype.element_ty
    SHIFT: tl.constexpr = 1 if STRICT else 0
    LATER: tl.constexpr = 1 if STRICT and not TOTALS else 0
    count = tl.cdiv(T, C)
    begin, end = number * PER, tl.minimum(number * PER + PER, count)
    first, last = 0, tl.num_programs(1) - 1  # the groups where the walk begins and ends
    if REVERSE:
        first, last = last, first
    final += plane * K * V
    entering += ((batch * tl.num_programs(1) + number) * H + head) * K * V
    planes = tl.num_programs(0) // (parts * blocks)
    if PACKED:
        planes = H
    out += part.to(tl.int64) * planes * T * V
    held = ()
    for slab in tl.static_range(SLABS):
        key = (part * SLABS + slab) * BK + tl.arange(0, BK)
        state = tl.zeros([BK, BV], tl.float32)
        if HAS_START:
            given = tl.where(number == first, K, 0)
            state = _load_start(start, batch, head, key, value, by_batch, by_head, by_key, by_value, given, V)
        if CUT:
            state += _load_tile(entering, key, value, V, tl.where(number == first, 0, K), V)
        held += (state,)
    if PACKED:
        begin, end = tl.load(table + batch), tl.load(table + batch + 1)
        batch *= 0
    for step in tl.range(end - begin, disable_licm=True):  # what would be hoisted is spilled
        chunk = begin + step
        if REVERSE:
            chunk = end - 1 - step
        base, place = (batch * T + chunk * C) * H + head, (batch * count + chunk) * H + head
        rows = T - chunk * C
        right = _load_tile(v + base * V, row, value, H * V, rows, V)
        written = right
        weight = _load_pairs(weights, place, row, column)
        if PARTED:  # of all together A counts once
            weight = tl.where(part == 0, weight, 0.0).to(LIKE)
        if BY_HEAD:
            reads, writes, total = _head_decays(decay, place, row, 0, False)
            sign = _signs_of(signs, base, row, rows, H, SIGNED)
            reads, writes = reads * sign * scale, writes * sign
            if REVERSE:
                reads, writes = writes, reads
            written = (right * writes[:, None]).to(LIKE)  # and not k, which goes into the product as it comes from memory
        found = tl.zeros([C, BV], tl.float32)
        after = ()
        for slab in tl.static_range(SLABS):
            key = (part * SLABS + slab) * BK + tl.arange(0, BK)
            state = held[slab]
            if REVERSE:
                _store_tile(states + place * K * V, state, key, value, V, K, V)
            reader = _load_tile(q + (base + LATER * H) * K, row, key, H * K, rows - LATER, K)
            writer = _load_tile(k + base * K, row, key, H * K, rows, K)
            if TOTALS:
                total = tl.load(decay + place * K + key, mask=key < K, other=0)[:, None]
            elif not BY_HEAD:
                gate = _gates_of(_load_tile(decay + base * K, row, key, H * K, rows, K))
                reader = (reader * tl.exp2(_sums(choices, LEVELS, gate, C, PRECISION)) * scale).to(LIKE)
                writer = (writer * tl.exp2(_sums(choices, LEVELS + 1, gate, C, PRECISION))).to(LIKE)
                total = tl.exp2(tl.sum(gate, 0))[:, None]
            if REVERSE:
                reader, writer = writer, reader
            found = tl.dot(reader, state.to(LIKE), found, input_precision=PRECISION)
            after += (tl.dot(tl.trans(writer), written, state * total, input_precision=PRECISION),)
        held = after
        if BY_HEAD:
            found *= reads[:, None]
        if REVERSE:
            weight = tl.trans(weight)
        found = tl.dot(weight, right, found, input_precision=PRECISION)
        _store_tile(out + (base + SHIFT * H) * V, found, row, value, H * V, rows - SHIFT, V)
    for slab in tl.static_range(SLABS):
        key = (part * SLABS + slab) * BK + tl.arange(0, BK)
        _store_tile(final, held[slab], key, value, V, tl.where(number == last, K, 0), V)
