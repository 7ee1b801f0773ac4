"""Kernels of the elementwise scan: channels side by side, the steps of a piece of time one after another.

A piece is one program's. Where channels alone do not fill a device, time is cut into several pieces: `_scan_ends_kernel`
finds the map of each, and the programs of the second launch go through the maps before theirs.
"""

import triton
import triton.language as tl

from .function_kernels import _expm1_small


@triton.jit
def _scan_step(decay, LOG: tl.constexpr):
    """The decay as kept + rate: exp(g) = 1 + expm1(g) where g is small, as exp(g) rounds to the same side every step."""
    if LOG:
        slow = tl.abs(decay) < 0.5
        rate = tl.where(slow, _expm1_small(decay), tl.exp2(decay * 1.4426950408889634))
        kept = tl.where(slow, 1.0, 0.0)
    else:
        rate = decay
        kept = tl.zeros_like(decay)
    return kept, rate


@triton.jit
def _scan_join(kept_1, rate_1, b_1, kept_2, rate_2, b_2):
    """One after the other: S -> (kept + rate) S + b, without adding kept and rate."""
    return kept_1 * kept_2, kept_2 * rate_1 + rate_2 * (kept_1 + rate_1), b_2 + (kept_2 * b_1 + rate_2 * b_1)


@triton.jit
def _scan_row(step, T, REVERSE: tl.constexpr):
    """The position of a step in the order of the scan."""
    if REVERSE:
        row = T - 1 - step
    else:
        row = step
    return row


@triton.jit
def _scan_inside(row, lane, T, D):
    """Which lanes of a row there are: none if the row is outside."""
    return lane < tl.where((row >= 0) & (row < T), D, 0)


@triton.jit
def _scan_load(x, at, row, stride, offset, mask, OTHER: tl.constexpr):
    """[BD]: a row of a tensor."""
    return tl.load(x + at + row.to(tl.int64) * stride + offset, mask=mask, other=OTHER).to(tl.float32)


@triton.jit
def _scan_ends_kernel(
    a, b, kept_ends, rate_ends, b_ends, T, D, INNER, LENGTH, a_batch, a_time, a_outer, a_inner,
    LOG: tl.constexpr, REVERSE: tl.constexpr, SHIFT: tl.constexpr, STEPS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The whole map of each piece of LENGTH steps: its decay as kept + rate, and where it takes zero.

    The decay of a step is the one that stands SHIFT steps before it. Rows of STEPS steps are loaded before any is used.
    """
    piece, blocks = tl.program_id(1), tl.cdiv(D, BD)
    batch, lane = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    offset = (lane // INNER).to(tl.int64) * a_outer + (lane % INNER).to(tl.int64) * a_inner
    neutral: tl.constexpr = 0.0 if LOG else 1.0
    kept, rate, state = tl.full([BD], 1.0, tl.float32), tl.zeros([BD], tl.float32), tl.zeros([BD], tl.float32)
    for first in range(piece * LENGTH, tl.minimum(piece * LENGTH + LENGTH, T), STEPS):
        decays, inputs = (), ()
        for i in tl.static_range(STEPS):
            row, row_a = _scan_row(first + i, T, REVERSE), _scan_row(first + i - SHIFT, T, REVERSE)
            mask_a = _scan_inside(row_a, lane, T, D)
            decays = decays + (_scan_load(a, batch * a_batch, row_a, a_time, offset, mask_a, neutral),)
            inputs = inputs + (_scan_load(b, batch * T * D, row, D, lane, _scan_inside(row, lane, T, D), 0.0),)
        for i in tl.static_range(STEPS):
            k, r = _scan_step(decays[i], LOG)
            kept, rate, state = _scan_join(kept, rate, state, k, r, inputs[i])
    place = (batch * tl.num_programs(1) + piece) * D + lane
    tl.store(kept_ends + place, kept, mask=lane < D)
    tl.store(rate_ends + place, rate, mask=lane < D)
    tl.store(b_ends + place, state, mask=lane < D)


@triton.jit
def _scan_enter(start, kept_ends, rate_ends, b_ends, batch, piece, lane, D, HAS_START: tl.constexpr):
    """The state that enters a piece: all earlier pieces in order, a few rows."""
    state = tl.zeros(lane.shape, tl.float32)
    if HAS_START:
        state = tl.load(start + batch * D + lane, mask=lane < D, other=0).to(tl.float32)
    for before in range(piece):
        place = (batch * tl.num_programs(1) + before) * D + lane
        kept = tl.load(kept_ends + place, mask=lane < D, other=0)
        rate = tl.load(rate_ends + place, mask=lane < D, other=0)
        state = tl.load(b_ends + place, mask=lane < D, other=0) + (kept * state + rate * state)
    return state


@triton.jit
def _scan_states_kernel(
    a, b, start, h, kept_ends, rate_ends, b_ends, T, D, INNER, LENGTH, a_batch, a_time, a_outer, a_inner,
    LOG: tl.constexpr, REVERSE: tl.constexpr, HAS_START: tl.constexpr, STEPS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """h[t] = a[t] h[t-1] + b[t] for one piece of time."""
    piece, blocks = tl.program_id(1), tl.cdiv(D, BD)
    batch, lane = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    offset = (lane // INNER).to(tl.int64) * a_outer + (lane % INNER).to(tl.int64) * a_inner
    neutral: tl.constexpr = 0.0 if LOG else 1.0
    state = _scan_enter(start, kept_ends, rate_ends, b_ends, batch, piece, lane, D, HAS_START)
    for first in range(piece * LENGTH, tl.minimum(piece * LENGTH + LENGTH, T), STEPS):
        decays, inputs = (), ()
        for i in tl.static_range(STEPS):
            row = _scan_row(first + i, T, REVERSE)
            mask = _scan_inside(row, lane, T, D)
            decays = decays + (_scan_load(a, batch * a_batch, row, a_time, offset, mask, neutral),)
            inputs = inputs + (_scan_load(b, batch * T * D, row, D, lane, mask, 0.0),)
        for i in tl.static_range(STEPS):
            row = _scan_row(first + i, T, REVERSE)
            k, r = _scan_step(decays[i], LOG)
            state = inputs[i] + (k * state + r * state)
            place = (batch * T + row) * D + lane
            tl.store(h + place, state, mask=_scan_inside(row, lane, T, D))


@triton.jit
def _scan_adjoint_kernel(
    a, grad, start, h, d_a, d_b, kept_ends, rate_ends, b_ends, T, D, INNER, LENGTH, a_batch, a_time, a_outer, a_inner,
    LOG: tl.constexpr, REVERSE: tl.constexpr, HAS_START: tl.constexpr, STEPS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """d_b[t] = grad[t] + a[t+1] d_b[t+1] and the decay's gradient, d_b[t] h[t-1] (times a[t] if it is a logarithm).

    REVERSE is the direction of this scan: against that of h, whose neighbour before t comes one step later here.
    """
    piece, blocks = tl.program_id(1), tl.cdiv(D, BD)
    batch, lane = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    offset = (lane // INNER).to(tl.int64) * a_outer + (lane % INNER).to(tl.int64) * a_inner
    neutral: tl.constexpr = 0.0 if LOG else 1.0
    state = _scan_enter(start, kept_ends, rate_ends, b_ends, batch, piece, lane, D, False)
    first_row = _scan_row(piece * LENGTH - 1, T, REVERSE)
    decay = _scan_load(a, batch * a_batch, first_row, a_time, offset, _scan_inside(first_row, lane, T, D), neutral)
    for first in range(piece * LENGTH, tl.minimum(piece * LENGTH + LENGTH, T), STEPS):
        decays, inputs, befores = (), (), ()
        for i in tl.static_range(STEPS):
            row, before = _scan_row(first + i, T, REVERSE), _scan_row(first + i + 1, T, REVERSE)
            mask = _scan_inside(row, lane, T, D)
            decays = decays + (_scan_load(a, batch * a_batch, row, a_time, offset, mask, neutral),)
            inputs = inputs + (_scan_load(grad, batch * T * D, row, D, lane, mask, 0.0),)
            befores = befores + (_scan_load(h, batch * T * D, before, D, lane, _scan_inside(before, lane, T, D), 0.0),)
        for i in tl.static_range(STEPS):
            row = _scan_row(first + i, T, REVERSE)
            mask = _scan_inside(row, lane, T, D)
            k, r = _scan_step(decay, LOG)
            state = inputs[i] + (k * state + r * state)
            decay = decays[i]
            before = befores[i]
            if HAS_START:
                entered = tl.load(start + batch * D + lane, mask=lane < tl.where(first + i == T - 1, D, 0), other=0)
                before += entered.to(tl.float32)
            gradient = state * before
            if LOG:
                gradient *= tl.exp2(decay * 1.4426950408889634)
            place = (batch * T + row) * D + lane
            tl.store(d_b + place, state, mask=mask)
            tl.store(d_a + place, gradient, mask=mask)
