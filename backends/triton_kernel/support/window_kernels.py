"""Kernels of the gradients of windows: what was sent to sums of x[t - step j - skip] w[j] goes to x, and to the taps w."""

import triton
import triton.language as tl


@triton.jit
def _window_source_kernel(grad, w, d_x, ROWS, S, T, L, before, taps, step, skip, BR: tl.constexpr, BL: tl.constexpr):
    """d_x[s] = sum over j of w[j] grad[s - before + step j + skip]: grad [B, T, L], w [taps, L], d_x [B, S, L]."""
    blocks = tl.cdiv(L, BL)
    lane = tl.program_id(0) % blocks * BL + tl.arange(0, BL)[None, :]
    row = tl.cast(tl.program_id(0) // blocks, tl.int64) * BR + tl.arange(0, BR)[:, None]
    found = tl.zeros([BR, BL], tl.float32)
    for j in range(taps):
        place = row % S - before + j * step + skip
        there = (row < ROWS) & (place >= 0) & (place < T) & (lane < L)
        given = tl.load(grad + (row // S * T + place) * L + lane, mask=there, other=0)
        tap = tl.load(w + tl.cast(j, tl.int64) * L + lane, mask=lane < L, other=0)
        found += given.to(tl.float32) * tap.to(tl.float32)
    tl.store(d_x + row * L + lane, found.to(d_x.dtype.element_ty), mask=(row < ROWS) & (lane < L))


@triton.jit
def _window_taps_kernel(
    grad, x, sums, ROWS, S, T, L, before, taps, step, skip, STEPS, BR: tl.constexpr, BL: tl.constexpr
):  # fmt: skip
    """A share of d_w[j] = sum over t of grad[t] x[t + before - step j - skip]: sums [shares, taps, L]."""
    blocks = tl.cdiv(L, BL)
    lane = tl.program_id(0) % blocks * BL + tl.arange(0, BL)[None, :]
    j, share = tl.program_id(1), tl.cast(tl.program_id(0) // blocks, tl.int64)
    found = tl.zeros([1, BL], tl.float32)
    for k in range(STEPS):
        row = (share * STEPS + k) * BR + tl.arange(0, BR)[:, None]
        place = row % T + before - j * step - skip
        there = (row < ROWS) & (place >= 0) & (lane < L)
        given = tl.load(grad + row * L + lane, mask=(row < ROWS) & (lane < L), other=0).to(tl.float32)
        entry = tl.load(x + (row // T * S + place) * L + lane, mask=there, other=0).to(tl.float32)
        found += tl.sum(given * entry, 0, keep_dims=True)
    tl.store(sums + (share * taps + j) * L + lane, found, mask=lane < L)
