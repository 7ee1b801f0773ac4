"""Kernels of reads of a matrix state whose decay is any function of row, column and time: o = q S, S <- a S + k v^T.

No product of matrices has the decays of both axes, so the state is stepped through time in registers: all rows of a few
columns are one program's, in a piece of time. Where these do not fill a device there are several pieces, as in the
scans of channels: a first launch finds the map of each. The adjoint carries R = a d_S, from the last step to the first;
it has the states again from those that the forward pass left every SEGMENT steps.
A decay (or its logarithm) is one factor or the product of two; each varies along time, rows, columns, or not: what it
does not vary along has the stride 0, and is not loaded.
"""

import triton
import triton.language as tl

from .scan_kernels import _scan_step


@triton.jit
def _long(step):
    """A step as a number of 64 bits."""
    return tl.full([], 0, tl.int64) + step


@triton.jit
def _factor_at(x, at, key, value, by_key, by_value, K, V, KEYS: tl.constexpr, VALUES: tl.constexpr):
    """One factor of the decay at one step, [K or 1, V or 1]."""
    if KEYS and VALUES:
        mask = (key < K)[:, None] & (value < V)[None, :]
        found = tl.load(x + at + key[:, None] * by_key + value[None, :] * by_value, mask=mask, other=0)
    elif KEYS:
        found = tl.load(x + at + key * by_key, mask=key < K, other=0)[:, None]
    elif VALUES:
        found = tl.load(x + at + value * by_value, mask=value < V, other=0)[None, :]
    else:
        found = tl.load(x + at + tl.zeros([1], tl.int32))[:, None]
    return found.to(tl.float32)


@triton.jit
def _decay_at(
    x, y, x_at, y_at, step, T, x_time, y_time, x_key, x_value, y_key, y_value, key, value, K, V,
    X_KEYS: tl.constexpr, X_VALUES: tl.constexpr, Y_KEYS: tl.constexpr, Y_VALUES: tl.constexpr, TWO: tl.constexpr,
    LOG: tl.constexpr,
):  # fmt: skip
    """Both factors of the decay of a step, and their product, which leaves what is outside as it is."""
    row = tl.minimum(tl.maximum(_long(step), 0), T - 1)
    first = _factor_at(x, x_at + row * x_time, key, value, x_key, x_value, K, V, X_KEYS, X_VALUES)
    second = first
    decay = first
    if TWO:
        second = _factor_at(y, y_at + row * y_time, key, value, y_key, y_value, K, V, Y_KEYS, Y_VALUES)
        decay = first * second
    neutral: tl.constexpr = 0.0 if LOG else 1.0
    rows = tl.where((step >= 0) & (step < T), K, 0)
    return first, second, tl.where((key < rows)[:, None] & (value < V)[None, :], decay, neutral)


@triton.jit
def _row_at(x, base, step, T, stride, index, size):
    """[size] a step's entries of a tensor [B, T, H, size]; zeros outside."""
    mask = index < tl.where((step >= 0) & (step < T), size, 0)
    return tl.load(x + base + _long(step) * stride + index, mask=mask, other=0).to(tl.float32)


@triton.jit
def _read_ends_kernel(
    q, k, v, d_o, x, y, totals, ends, T, H, K, V, LENGTH, x_batch, x_time, x_head, x_key, x_value,
    y_batch, y_time, y_head, y_key, y_value,
    X_KEYS: tl.constexpr, X_VALUES: tl.constexpr, Y_KEYS: tl.constexpr, Y_VALUES: tl.constexpr, TWO: tl.constexpr,
    LOG: tl.constexpr, STRICT: tl.constexpr, REVERSE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """The map of a piece of time: its whole decay, and where it takes zero. REVERSE: that of R.

    Of all pieces but the one that comes last in the scan's order: nothing goes through its map.
    """
    plane, piece = tl.program_id(0), tl.program_id(2)
    if REVERSE:
        piece += 1
    batch, head = (plane // H).to(tl.int64), plane % H
    key, value = tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    base = batch * T * H + head
    x_at, y_at = batch * x_batch + head * x_head, batch * y_batch + head * y_head
    state, total = tl.zeros([BK, BV], tl.float32), tl.full([BK, BV], 0.0 if LOG else 1.0, tl.float32)
    begin, end = piece * LENGTH, tl.minimum(piece * LENGTH + LENGTH, T)
    for step in range(begin, end):
        at = step
        if REVERSE:
            at = end - 1 - (step - begin)
        _, _, decay = _decay_at(
            x, y, x_at, y_at, at, T, x_time, y_time, x_key, x_value, y_key, y_value, key, value, K, V,
            X_KEYS, X_VALUES, Y_KEYS, Y_VALUES, TWO, LOG,
        )  # fmt: skip
        kept, rate = _scan_step(decay, LOG)
        if REVERSE:
            left, right = _row_at(q, base * K, at, T, H * K, key, K), _row_at(d_o, base * V, at, T, H * V, value, V)
        else:
            left, right = _row_at(k, base * K, at, T, H * K, key, K), _row_at(v, base * V, at, T, H * V, value, V)
        write = left[:, None] * right[None, :]
        if REVERSE and not STRICT:
            state += write
            state = kept * state + rate * state
        else:
            state = write + (kept * state + rate * state)
        if LOG:
            total += decay
        else:
            total *= decay
    inside = (key < K)[:, None] & (value < V)[None, :]
    place = ((plane.to(tl.int64) * (tl.num_programs(2) + 1) + piece) * K + key[:, None]) * V + value[None, :]
    tl.store(ends + place, state, mask=inside)
    tl.store(totals + place, total, mask=inside)


@triton.jit
def _read_enter(
    start, totals, ends, plane, piece, first, last, key, value, K, V, inside,
    HAS_START: tl.constexpr, LOG: tl.constexpr, REVERSE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """The state that enters a piece: all pieces from first to last in the order of the scan."""
    corner = key[:, None] * V + value[None, :]
    state = tl.zeros([BK, BV], tl.float32)
    if HAS_START:
        state = tl.load(start + plane * K * V + corner, mask=inside, other=0).to(tl.float32)
    for number in range(first, last):
        one = number
        if REVERSE:
            one = last - 1 - (number - first)
        place = (plane * tl.num_programs(2) + one) * K * V + corner
        kept, rate = _scan_step(tl.load(totals + place, mask=inside, other=0), LOG)
        state = tl.load(ends + place, mask=inside, other=0) + (kept * state + rate * state)
    return state


@triton.jit
def _read_states_kernel(
    q, k, v, x, y, start, o, final, marks, totals, ends, table, T, H, K, V, LENGTH, x_batch, x_time, x_head, x_key, x_value,
    y_batch, y_time, y_head, y_key, y_value,
    X_KEYS: tl.constexpr, X_VALUES: tl.constexpr, Y_KEYS: tl.constexpr, Y_VALUES: tl.constexpr, TWO: tl.constexpr,
    LOG: tl.constexpr, STRICT: tl.constexpr, HAS_START: tl.constexpr, KEEP: tl.constexpr, PACKED: tl.constexpr,
    SEGMENT: tl.constexpr, STEPS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """o [B, T, H, V], and with KEEP the state before every SEGMENT-th step in marks [B, T / SEGMENT, H, K, V].

    PACKED: start and final are of the sequences whose segments `table` [N + 1] bounds, one behind the other, each one piece.
    """
    plane, piece = tl.program_id(0).to(tl.int64), tl.program_id(2)
    batch, head = plane // H, plane % H
    key, value = tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    opening, end = piece * LENGTH, tl.minimum(piece * LENGTH + LENGTH, T)
    if PACKED:
        opening, end = tl.load(table + batch) * SEGMENT, tl.load(table + batch + 1) * SEGMENT
        batch *= 0
    base = batch * T * H + head
    x_at, y_at = batch * x_batch + head * x_head, batch * y_batch + head * y_head
    inside = (key < K)[:, None] & (value < V)[None, :]
    corner = key[:, None] * V + value[None, :]
    state = _read_enter(start, totals, ends, plane, piece, 0, piece, key, value, K, V, inside, HAS_START, LOG, False, BK, BV)
    for begin in range(opening, end, STEPS):
        if KEEP:
            if begin % SEGMENT == 0:
                mark = ((batch * tl.cdiv(T, SEGMENT) + begin // SEGMENT) * H + head) * K * V + corner
                tl.store(marks + mark, state, mask=inside)
        reads, lefts, rights, decays = (), (), (), ()
        for i in tl.static_range(STEPS):
            reads = reads + (_row_at(q, base * K, begin + i, T, H * K, key, K),)
            lefts = lefts + (_row_at(k, base * K, begin + i, T, H * K, key, K),)
            rights = rights + (_row_at(v, base * V, begin + i, T, H * V, value, V),)
            _, _, decay = _decay_at(
                x, y, x_at, y_at, begin + i, T, x_time, y_time, x_key, x_value, y_key, y_value, key, value, K, V,
                X_KEYS, X_VALUES, Y_KEYS, Y_VALUES, TWO, LOG,
            )  # fmt: skip
            decays = decays + (decay,)
        for i in tl.static_range(STEPS):
            kept, rate = _scan_step(decays[i], LOG)
            before = state
            state = lefts[i][:, None] * rights[i][None, :] + (kept * state + rate * state)
            if STRICT:
                found = tl.sum(reads[i][:, None] * before, 0)
            else:
                found = tl.sum(reads[i][:, None] * state, 0)
            mask = value < tl.where(begin + i < T, V, 0)
            place = (base + _long(begin + i) * H) * V + value
            tl.store(o + place, found.to(o.dtype.element_ty), mask=mask)
    if PACKED or end == T:
        tl.store(final + plane * K * V + corner, state, mask=inside)


@triton.jit
def _factor_store(
    x, gradient, base, block, step, T, H, B, key, value, K, V,
    TIME: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """A step's gradient of a factor that varies along time, summed along what it does not vary along.

    [B, T, H, K, V], [B, T, H, V], or for the columns of each program [blocks, B, T, H, K], [blocks, B, T, H].
    """
    if TIME:
        row = base + _long(step) * H
        live = step < T
        if KEYS and VALUES:
            mask = (key < tl.where(live, K, 0))[:, None] & (value < V)[None, :]
            tl.store(x + (row * K + key[:, None]) * V + value[None, :], gradient, mask=mask)
        elif VALUES:
            tl.store(x + row * V + value, tl.sum(gradient, 0), mask=value < tl.where(live, V, 0))
        elif KEYS:
            row += block * B * T * H
            tl.store(x + row * K + key, tl.sum(gradient, 1), mask=key < tl.where(live, K, 0))
        else:
            row += block * B * T * H
            tl.store(x + row, tl.sum(tl.sum(gradient, 1), 0), mask=live)


@triton.jit
def _read_adjoint_kernel(
    q, k, v, x, y, marks, scratch, d_o, d_final, d_q, d_k, d_v, d_x, d_y, d_start, totals, ends, table, B, T, H, K, V, LENGTH,
    x_batch, x_time, x_head, x_key, x_value, y_batch, y_time, y_head, y_key, y_value,
    X_TIME: tl.constexpr, X_KEYS: tl.constexpr, X_VALUES: tl.constexpr,
    Y_TIME: tl.constexpr, Y_KEYS: tl.constexpr, Y_VALUES: tl.constexpr, TWO: tl.constexpr,
    LOG: tl.constexpr, STRICT: tl.constexpr, HAS_FINAL: tl.constexpr, PACKED: tl.constexpr,
    SEGMENT: tl.constexpr, STEPS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """All gradients of one piece of time, segment by segment from the last.

    d_q and d_k [blocks, B, T, H, K]: the part that each program's columns make. A factor that does not vary along time
    gets [B, pieces, H, K, V], with PACKED sequences for pieces. `scratch` holds the states of a segment, for each program its own.
    """
    plane, piece = tl.program_id(0).to(tl.int64), tl.program_id(2)
    block = tl.program_id(1).to(tl.int64)
    batch, head = plane // H, plane % H
    key, value = tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    begin, end = piece * LENGTH, tl.minimum(piece * LENGTH + LENGTH, T)
    still = ((batch * tl.num_programs(2) + piece) * H + head) * K * V
    if PACKED:
        begin, end = tl.load(table + batch) * SEGMENT, tl.load(table + batch + 1) * SEGMENT
        batch *= 0
    base = batch * T * H + head
    x_at, y_at = batch * x_batch + head * x_head, batch * y_batch + head * y_head
    inside = (key < K)[:, None] & (value < V)[None, :]
    corner = key[:, None] * V + value[None, :]
    tile = tl.arange(0, BK)[:, None] * BV + tl.arange(0, BV)[None, :]
    own = (plane * tl.num_programs(1) + block) * tl.num_programs(2) + piece
    scratch += own * SEGMENT * BK * BV
    carried = _read_enter(
        d_final, totals, ends, plane, piece, piece + 1, tl.num_programs(2), key, value, K, V, inside,
        HAS_FINAL, LOG, True, BK, BV,
    )  # fmt: skip
    x_sum, y_sum = tl.zeros([BK, BV], tl.float32), tl.zeros([BK, BV], tl.float32)
    count = tl.cdiv(end - begin, SEGMENT)
    for number in range(count):
        first = begin + (count - 1 - number) * SEGMENT
        place = ((batch * tl.cdiv(T, SEGMENT) + first // SEGMENT) * H + head) * K * V + corner
        state = tl.load(marks + place, mask=inside, other=0)
        steps = tl.minimum(SEGMENT, end - first)
        for i in range(steps):
            tl.store(scratch + i * BK * BV + tile, state)
            left = _row_at(k, base * K, first + i, T, H * K, key, K)
            right = _row_at(v, base * V, first + i, T, H * V, value, V)
            _, _, decay = _decay_at(
                x, y, x_at, y_at, first + i, T, x_time, y_time, x_key, x_value, y_key, y_value, key, value, K, V,
                X_KEYS, X_VALUES, Y_KEYS, Y_VALUES, TWO, LOG,
            )  # fmt: skip
            kept, rate = _scan_step(decay, LOG)
            state = left[:, None] * right[None, :] + (kept * state + rate * state)
        tl.debug_barrier()
        for i in range(steps):
            step = first + steps - 1 - i
            before = tl.load(scratch + (steps - 1 - i) * BK * BV + tile)
            read, left = _row_at(q, base * K, step, T, H * K, key, K), _row_at(k, base * K, step, T, H * K, key, K)
            right, grad = _row_at(v, base * V, step, T, H * V, value, V), _row_at(d_o, base * V, step, T, H * V, value, V)
            one, two, decay = _decay_at(
                x, y, x_at, y_at, step, T, x_time, y_time, x_key, x_value, y_key, y_value, key, value, K, V,
                X_KEYS, X_VALUES, Y_KEYS, Y_VALUES, TWO, LOG,
            )  # fmt: skip
            kept, rate = _scan_step(decay, LOG)
            shared = read[:, None] * grad[None, :]
            if STRICT:
                d_state = carried
                d_read = tl.sum(before * grad[None, :], 1)
            else:
                d_state = carried + shared
                after = left[:, None] * right[None, :] + (kept * before + rate * before)
                d_read = tl.sum(after * grad[None, :], 1)
            d_left, d_right = tl.sum(d_state * right[None, :], 1), tl.sum(d_state * left[:, None], 0)
            carried = kept * d_state + rate * d_state
            if LOG:
                d_decay = carried * before
            else:
                d_decay = d_state * before
            if STRICT:
                carried += shared
            row = base + _long(step) * H
            live_keys, live_values = key < tl.where(step < T, K, 0), value < tl.where(step < T, V, 0)
            tl.store(d_q + (block * B * T * H + row) * K + key, d_read, mask=live_keys)
            tl.store(d_k + (block * B * T * H + row) * K + key, d_left, mask=live_keys)
            tl.store(d_v + row * V + value, d_right.to(d_v.dtype.element_ty), mask=live_values)
            d_one, d_two = d_decay, d_decay
            if TWO:
                d_one, d_two = d_decay * two, d_decay * one
            _factor_store(d_x, d_one, base, block, step, T, H, B, key, value, K, V, X_TIME, X_KEYS, X_VALUES)
            if TWO:
                _factor_store(d_y, d_two, base, block, step, T, H, B, key, value, K, V, Y_TIME, Y_KEYS, Y_VALUES)
            if not X_TIME:
                x_sum += d_one
            if TWO and not Y_TIME:
                y_sum += d_two
        tl.debug_barrier()
    if not X_TIME:
        tl.store(d_x + still + corner, x_sum, mask=inside)
    if TWO and not Y_TIME:
        tl.store(d_y + still + corner, y_sum, mask=inside)
    if piece == 0:
        tl.store(d_start + plane * K * V + corner, carried, mask=inside)
