"""The float64 numpy meaning of every operator: one function each, named as the row of `ops.OPS` says.

Calling conventions
  elementwise   broadcasting arrays in, array out
  reduce        (body, mask): the reduced axes are last and flattened to one, in row-major order; points where the mask
                is False do not take part. An empty reduction gives rule 12's value
  along         (body, mask, **options): the same layout, and the axis is kept; 0 outside the mask
  map           operands with the consumed axis last (`solve`: A[.., d, f] and b[.., d]; `qr`: A[.., d, f]); `n` is the
                length of the made axis; `matrix_taps` c [.., N], A [.., N, M], b [.., M]
  scan, last    time first: a, b [T, ..], start [..]; `decayed_read` q, k, a [T, .., K], v [T, ..], start [.., K];
                `decayed_solve` w, u [T, R, .., K], x [T, R, ..], a [T, .., K], start [.., K], R all ranks at once;
                `micro_solve` the same with a [T, R, .., K], R the steps inside each position, in order;
                `matrix_scan` A [T, N, .., M], b [T, N, ..], start [N, ..]; `grid_scan` A and C [I, J, N, .., M],
                b [I, J, N, ..], top [J, N, ..], left [I, N, ..]; `decayed_state` everything over the
                state's own axes; the `block_` operators the same with parts P before the heads, a [T, P, P, ..]

More than 400 lines, because it is one short function for each operator, and they belong in one place.

Architecture invariant: literal and slow; nothing here is shared with a backend.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np

A = np.ndarray[Any, Any]
_erf = np.vectorize(math.erf, otypes=[np.float64])
_bits = np.vectorize(lambda n: int(n).bit_length(), otypes=[np.int64])
_ones = np.vectorize(lambda n: int(n).bit_count(), otypes=[np.int64])


def _number(x: A) -> A:
    return x.astype(np.int64) if x.dtype == bool else x


def _real(x: A) -> A:
    return x if np.iscomplexobj(x) else x.astype(np.float64)


def add(a: A, b: A) -> A:
    return _number(a) + _number(b)


def sub(a: A, b: A) -> A:
    return _number(a) - _number(b)


def mul(a: A, b: A) -> A:
    return _number(a) * _number(b)


def div(a: A, b: A) -> A:
    return _real(a) / _real(b)


def exact_div(a: A, b: A) -> A:
    if np.any(b == 0) or np.any(a % np.where(b == 0, 1, b)):
        raise ArithmeticError("a size is divided inexactly")
    return a // b


def _nonzero(b: A) -> A:
    return np.where(b == 0, 1, b) if np.issubdtype(b.dtype, np.integer) else b


def floor_div(a: A, b: A) -> A:
    return _number(a) // _nonzero(_number(b))


def mod(a: A, b: A) -> A:
    return _number(a) % _nonzero(_number(b))


def power(a: A, b: A) -> A:
    """Of integers an integer, unless an exponent is negative."""
    a, b = _number(a), _number(b)
    if np.issubdtype(a.dtype, np.integer) and np.issubdtype(b.dtype, np.integer) and (b < 0).any():
        a = a.astype(np.float64)
    return np.asarray(np.power(a, b))


def neg(a: A) -> A:
    return -_number(a)


def maximum(a: A, b: A) -> A:
    return np.maximum(_number(a), _number(b))


def minimum(a: A, b: A) -> A:
    return np.minimum(_number(a), _number(b))


def lt(a: A, b: A) -> A:
    return np.less(a, b)


def le(a: A, b: A) -> A:
    return np.less_equal(a, b)


def eq(a: A, b: A) -> A:
    return np.equal(a, b)


def ne(a: A, b: A) -> A:
    return np.not_equal(a, b)


def logical_and(a: A, b: A) -> A:
    return np.logical_and(a, b)


def logical_or(a: A, b: A) -> A:
    return np.logical_or(a, b)


def logical_not(a: A) -> A:
    return np.logical_not(a)


def where(condition: A, a: A, b: A) -> A:
    if a.dtype == bool and b.dtype == bool:
        return np.where(condition, a, b)
    return np.where(condition, _number(a), _number(b))


def exp(a: A) -> A:
    return np.exp(_real(a))


def log(a: A) -> A:
    return np.log(_real(a))


def log2(a: A) -> A:
    return np.log2(_real(a))


def sqrt(a: A) -> A:
    return np.sqrt(_real(a))


def absolute(a: A) -> A:
    return np.abs(a)


def sign(a: A, grad: str = "zero") -> A:
    return a if a.dtype == bool else np.sign(a)


def sin(a: A) -> A:
    return np.sin(_real(a))


def cos(a: A) -> A:
    return np.cos(_real(a))


def tanh(a: A) -> A:
    return np.tanh(_real(a))


def sigmoid(a: A) -> A:
    a = _real(a)
    e = np.exp(-np.abs(a))  # never overflows
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e))


def log_sigmoid(a: A) -> A:
    a = _real(a)
    return np.minimum(a, 0) - np.log1p(np.exp(-np.abs(a)))


def softplus(a: A) -> A:
    a = _real(a)
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


def inv_softplus(a: A) -> A:
    a = _real(a)
    return a + np.log(-np.expm1(-a))


def silu(a: A) -> A:
    return _real(a) * sigmoid(a)


def gelu(a: A) -> A:
    a = _real(a)
    return a * 0.5 * (1 + _erf(a / np.sqrt(2))) if a.size else a


def relu(a: A) -> A:
    return np.maximum(_number(a), 0)


def leaky_relu(a: A, slope: float = 0.2) -> A:
    a = _real(a)
    return np.where(a > 0, a, float(slope) * a)


def elu(a: A) -> A:
    a = _real(a)
    return np.where(a > 0, a, np.expm1(np.minimum(a, 0)))


def erf(a: A) -> A:
    return _erf(a) if a.size else _real(a)


def expm1(a: A) -> A:
    return np.expm1(_real(a))


def log1p(a: A) -> A:
    return np.log1p(_real(a))


def logaddexp(a: A, b: A) -> A:
    return np.logaddexp(_real(a), _real(b))


def clamp(a: A, low: A, high: A) -> A:
    return np.minimum(np.maximum(_number(a), _number(low)), _number(high))


def floor(a: A) -> A:
    return _to_int(np.floor(a))


def ceil(a: A) -> A:
    return _to_int(np.ceil(a))


def _to_int(a: A) -> A:
    return np.asarray(np.clip(np.nan_to_num(a), -(2.0**62), 2.0**62).astype(np.int64))


def round_half_even(a: A, grad: str = "zero") -> A:
    return np.round(_number(a))


def step(a: A, grad: str = "zero") -> A:
    """1 from 0 on, else 0."""
    return (a >= 0).astype(np.float64)


def stop(a: A) -> A:
    return a


def xor(a: A, b: A) -> A:
    return np.bitwise_xor(_number(a), _number(b))


def bit_and(a: A, b: A) -> A:
    return np.bitwise_and(_number(a), _number(b))


def bit_length(a: A) -> A:
    return _bits(a) if a.size else _number(a)


def popcount(a: A) -> A:
    return _ones(a) if a.size else _number(a)


def real(a: A) -> A:
    return np.real(a)


def imag(a: A) -> A:
    return np.imag(a) if np.iscomplexobj(a) else np.zeros_like(a)


def conj(a: A) -> A:
    return a if a.dtype == bool else np.conj(a)


# Reductions ------------------------------------------------------------------------------------------------------


def _masked(body: A, mask: A, fill: int) -> A:
    body = _number(body)
    return np.where(mask, body, np.asarray(fill, body.dtype))


def reduce_sum(body: A, mask: A) -> A:
    return np.asarray(_masked(body, mask, 0).sum(-1))


def reduce_mean(body: A, mask: A) -> A:
    count = np.broadcast_to(mask, np.broadcast_shapes(body.shape, mask.shape)).sum(-1)
    return np.asarray(reduce_sum(_real(_number(body)), mask) / np.maximum(count, 1))


def reduce_prod(body: A, mask: A) -> A:
    return np.asarray(_masked(body, mask, 1).prod(-1))


def reduce_max(body: A, mask: A) -> A:
    """Of integers an integer: then the least one stands for -inf."""
    body = _number(body)
    least = np.iinfo(np.int64).min if np.issubdtype(body.dtype, np.integer) else -np.inf
    return np.asarray(np.where(mask, body, least).max(-1, initial=least))


def reduce_min(body: A, mask: A) -> A:
    """Of integers an integer: then the greatest one stands for inf."""
    body = _number(body)
    most = np.iinfo(np.int64).max if np.issubdtype(body.dtype, np.integer) else np.inf
    return np.asarray(np.where(mask, body, most).min(-1, initial=most))


def _extreme(body: A, mask: A, empty: float) -> A:
    return np.where(mask, _real(_number(body)), empty)


def reduce_logsumexp(body: A, mask: A) -> A:
    body = _extreme(body, mask, -np.inf)
    top = body.max(-1, keepdims=True, initial=-np.inf)
    safe = np.where(np.isinf(top), 0.0, top)
    return np.where(np.isposinf(top[..., 0]), np.inf, np.log(np.exp(body - safe).sum(-1)) + safe[..., 0])


def reduce_any(body: A, mask: A) -> A:
    return np.asarray((body & mask).any(-1))


def reduce_all(body: A, mask: A) -> A:
    return np.asarray((body | ~mask).all(-1))


def reduce_argmax(body: A, mask: A) -> A:
    """The row-major position of the largest entry, the lowest of equals."""
    body = _extreme(body, mask, -np.inf)
    if body.shape[-1] == 0:
        return np.zeros(body.shape[:-1], dtype=np.int64)
    first = np.argmax(np.broadcast_to(mask, body.shape), -1)  # if all entries are -inf, the first that takes part
    best = np.argmax(body, -1)
    return np.asarray(np.where(np.isneginf(body.max(-1)), first, best))


# Along axes ------------------------------------------------------------------------------------------------------


def softmax(body: A, mask: A) -> A:
    body = _extreme(body, mask, -np.inf)
    top = body.max(-1, keepdims=True, initial=-np.inf)
    weight = np.exp(body - np.where(np.isinf(top), 0.0, top))
    total = weight.sum(-1, keepdims=True)
    return np.where(mask, weight / np.where(total == 0, 1.0, total), 0.0)


def normalised_read(scores: A, values: A, mask: A) -> A:
    """The sum of the values weighted by the softmax of the scores."""
    return np.asarray(np.where(mask, softmax(scores, mask) * np.where(mask, _real(values), 0.0), 0.0).sum(-1))


def rank(body: A, mask: A) -> A:
    """How many entries beat each one; of equals the lower index wins."""
    shape = np.broadcast_shapes(body.shape, mask.shape)
    body, mask = np.broadcast_to(_number(body), shape), np.broadcast_to(mask, shape)
    n = shape[-1]
    other, own = body[..., None, :], body[..., :, None]
    earlier = np.arange(n)[None, :] < np.arange(n)[:, None]
    beats = ((other > own) | ((other == own) & earlier)) & mask[..., None, :]
    return np.where(mask, beats.sum(-1), 0)


def rms_norm(body: A, mask: A, eps: float = 1e-6) -> A:
    return np.where(mask, body / np.sqrt(reduce_mean(body * body, mask) + float(eps))[..., None], 0.0)


def layer_norm(body: A, mask: A, eps: float = 1e-6) -> A:
    return rms_norm(np.where(mask, body - reduce_mean(body, mask)[..., None], 0.0), mask, eps)


def l2_norm(body: A, mask: A, eps: float = 1e-12) -> A:
    return np.where(mask, body / np.sqrt(reduce_sum(body * body, mask) + float(eps))[..., None], 0.0)


def cumsum(body: A, mask: A) -> A:
    """The sum of the entries so far, its own included."""
    return np.where(mask, np.asarray(_masked(body, mask, 0).cumsum(-1)), 0)


# Maps from consumed to made axes ---------------------------------------------------------------------------------


def fft(x: A, n: int) -> A:
    return np.fft.fft(x, axis=-1) if x.shape[-1] else x.astype(np.complex128)


def ifft(x: A, n: int) -> A:
    return np.fft.ifft(x, axis=-1) if x.shape[-1] else x.astype(np.complex128)


def rfft(x: A, n: int) -> A:
    return np.fft.rfft(x, axis=-1) if x.shape[-1] else np.zeros((*x.shape[:-1], 1), np.complex128)  # an empty sum


def irfft(x: A, n: int) -> A:
    return np.fft.irfft(x, n=n, axis=-1) if n else np.zeros((*x.shape[:-1], 0))


def hadamard(x: A, n: int) -> A:
    """Orthonormal, in natural order; the length must be a power of two."""
    i = np.arange(x.shape[-1])
    signs = 1.0 - 2.0 * (popcount(i[:, None] & i[None, :]) % 2)
    return np.asarray(_real(x) @ signs / np.sqrt(max(x.shape[-1], 1)))


def dct(x: A, n: int) -> A:
    """DCT-II, orthonormal."""
    size = x.shape[-1]
    k, i = np.arange(size)[None, :], np.arange(size)[:, None]
    basis = np.cos(np.pi * (2 * i + 1) * k / (2 * max(size, 1))) * np.sqrt(2 / max(size, 1))
    basis[:, :1] /= np.sqrt(2)
    return np.asarray(_real(x) @ basis)


def solve(matrix: A, right: A, n: int) -> A:
    """x with sum[f] A[d, f] x[f] = b[d]; NaN where A is singular."""
    shape = np.broadcast_shapes(matrix.shape[:-2], right.shape[:-1])
    matrix = np.broadcast_to(_real(matrix), (*shape, *matrix.shape[-2:]))
    right = np.broadcast_to(_real(right), (*shape, right.shape[-1]))
    out = np.full((*shape, n), np.nan, np.result_type(matrix, right))
    for place in np.ndindex(*shape):
        with suppress(np.linalg.LinAlgError):
            out[place] = np.linalg.solve(matrix[place], right[place])
    return out


def qr(x: A, n: int) -> A:
    """Q of A[d, f] = Q R with a positive diagonal of R."""
    q, r = np.linalg.qr(_real(x))
    signs = np.sign(np.diagonal(r, axis1=-2, axis2=-1))
    return q * np.where(signs == 0, 1.0, signs)[..., None, :]


# What forms make -------------------------------------------------------------------------------------------------


def newton(step: A, *more: A) -> A:
    """The step itself: one position after another is what solving for all of them must agree with."""
    return np.broadcast_arrays(step, *more)[0]


def front(step: A, **geometry: object) -> A:
    """The step itself, whatever the geometry: it is only said for who evaluates fronts, of a grid or of a graph."""
    return step


def affine_scan(decay: A, value: A, start: A, log: bool = False, reverse: bool = False) -> A:
    """h[t] = a[t] h[t-1] + b[t], h[-1] = start."""
    decay = np.exp(decay) if log else decay
    times = range(value.shape[0])
    state = start
    out = np.zeros(
        np.broadcast_shapes(decay.shape, value.shape, (value.shape[0], *start.shape)),
        dtype=np.result_type(decay, value, start),
    )
    for t in reversed(times) if reverse else times:
        state = decay[t] * state + value[t]
        out[t] = state
    return out


_RINGS = {
    "max_plus": (np.maximum, np.add),
    "min_plus": (np.minimum, np.add),
    "logaddexp_plus": (np.logaddexp, np.add),
    "or_and": (np.logical_or, np.logical_and),
    "max_times": (np.maximum, np.multiply),
}


def ring_scan(factor: A, value: A, start: A, ring: str = "max_plus", reverse: bool = False) -> A:
    """h[t] = (a[t] mul h[t-1]) add b[t], h[-1] = start."""
    add, mul = _RINGS[ring]
    times = range(value.shape[0])
    each = np.broadcast_shapes(factor.shape[1:], value.shape[1:], start.shape)
    out, state = np.zeros((value.shape[0], *each), np.result_type(factor, value, start)), start
    for t in reversed(times) if reverse else times:
        state = add(mul(factor[t], state), value[t])
        out[t] = state
    return out


def across_ranks(factor: A, value: A, start: A, acts: str = "times", reverse: bool = False) -> A:
    """The state before and the state after the piece, of one rank: start, and what the element (a, b) makes of it. The
    components of a state lie in its first axis; a matrix's columns are its last."""
    if acts in _RINGS:
        add, mul = _RINGS[acts]
        after = add(mul(factor[..., 0], start), value)
    elif acts == "matrix":
        each = np.broadcast_shapes(start.shape[1:], factor.shape[1:-1])
        state = np.broadcast_to(start, (start.shape[0], *each))
        after = (factor * np.moveaxis(state, 0, -1)).sum(-1) + value
    else:
        after = (np.exp(factor) if acts == "exp" else factor)[..., 0] * start + value
    return np.stack(np.broadcast_arrays(start, after))


def matrix_scan(matrix: A, value: A, start: A, reverse: bool = False) -> A:
    """h[t] = A[t] h[t-1] + b[t], h[-1] = start, over the axis after the time; the matrix's other axis is its last."""
    times = range(value.shape[0])
    state = start
    each = np.broadcast_shapes(matrix.shape[1:-1], value.shape[1:], start.shape)
    out = np.zeros((value.shape[0], *each), dtype=np.result_type(matrix, value, start))
    for t in reversed(times) if reverse else times:
        state = np.broadcast_to(state, each)
        state = (matrix[t] * np.moveaxis(state, 0, -1)).sum(-1) + value[t]
        out[t] = state
    return out


def grid_scan(down: A, right: A, value: A, top: A, left: A, up: bool = False, back: bool = False) -> A:
    """h[i, j] = A[i, j] h[i-1, j] + C[i, j] h[i, j-1] + b[i, j], h[-1, j] = top[j], h[i, -1] = left[i]; a matrix's last
    axis is contracted with the axis after i and j."""
    rows, columns = value.shape[:2]
    each = np.broadcast_shapes(down.shape[2:-1], right.shape[2:-1], value.shape[2:], top.shape[1:], left.shape[1:])
    out = np.zeros((rows, columns, *each), dtype=np.result_type(down, right, value, top, left))
    last_row = np.broadcast_to(top, (columns, *each)).astype(out.dtype)
    for i in reversed(range(rows)) if up else range(rows):
        state = np.broadcast_to(left[i], each)
        for j in reversed(range(columns)) if back else range(columns):
            above, beside = (np.moveaxis(x, 0, -1) for x in (last_row[j], state))
            state = (down[i, j] * above).sum(-1) + (right[i, j] * beside).sum(-1) + value[i, j]
            out[i, j] = last_row[j] = state
    return out


def matrix_taps(c: A, matrix: A, b: A, n: int) -> A:
    """c . A^l b for l < n, over the component axes, which are the last ones of each operand."""
    axes = matrix.ndim - c.ndim
    size = int(np.prod(c.shape[c.ndim - axes :], dtype=np.int64))
    c, state = (x.reshape(*x.shape[: x.ndim - axes], size) for x in (c, b))
    matrix = matrix.reshape(*matrix.shape[: -2 * axes], size, size)
    lead = np.broadcast_shapes(c.shape[:-1], matrix.shape[:-2], state.shape[:-1])
    out = np.zeros((*lead, n), dtype=np.result_type(c, matrix, b))
    for step in range(n):
        out[..., step] = (c * state).sum(-1)
        state = (matrix * state[..., None, :]).sum(-1)
    return out


def decayed_read(q: A, k: A, v: A, decay: A, start: A, log: bool = False, strict: bool = False, chunk: int = 64) -> A:
    """sum over the last axis of q[t] * S[t], with S[t] = a[t] S[t-1] + k[t] v[t]."""
    decay = np.exp(decay) if log else decay
    state, out = start, []
    for t in range(q.shape[0]):
        before = state
        state = decay[t] * state + k[t] * v[t][..., None]
        out.append((q[t] * (before if strict else state)).sum(-1))
    each = np.broadcast_shapes(q.shape[1:], k.shape[1:], (*v.shape[1:], 1), decay.shape[1:], start.shape)[:-1]
    return np.stack([np.broadcast_to(x, each) for x in out]) if out else np.zeros((0, *each))


def decayed_product(
    k: A, v: A, decay: A, start: A, q: A, p: A, other: A, end: A, log: bool = False, log_other: bool = False
) -> A:
    """sum over the last axis of F[t-1] * G[T-2-t]: F[t] = decay[t] F[t-1] + k[t] v[t] from start, G of q, p, other, end."""
    before = _states_before(k, v, np.exp(decay) if log else decay, start)
    after = _states_before(q, p, np.exp(other) if log_other else other, end)
    return np.asarray((before * after[::-1]).sum(-1))


def _states_before(k: A, v: A, decay: A, start: A) -> A:
    """The state before each step."""
    each = np.broadcast_shapes((*k.shape[1:], 1), v.shape[1:], (*decay.shape[1:], 1), start.shape)
    state, out = np.broadcast_to(start, each), []
    for t in range(k.shape[0]):
        out.append(state)
        state = decay[t][..., None] * state + k[t][..., None] * v[t]
    return np.stack(out) if out else np.zeros((0, *each))


def decayed_solve(w: A, u: A, x: A, decay: A, start: A, log: bool = False, after: bool = False, chunk: int = 64) -> A:
    """y[t,r] = x[t,r] + the sum over the last axis of w[t,r] * S[t-1] (of a[t] S[t-1] if `after`); S[t] = a[t] S[t-1] +
    the sum over r of u[t,r] y[t,r]. The axis after the time is r."""
    decay = np.exp(decay) if log else decay
    state, out = start, []
    for t in range(x.shape[0]):
        kept = decay[t] * state
        y = x[t] + (w[t] * (kept if after else state)).sum(-1)
        out.append(y)
        state = kept + (u[t] * y[..., None]).sum(0)
    each = np.broadcast_shapes(w.shape[1:-1], x.shape[1:], (1, *start.shape[:-1]), u.shape[1:-1], decay.shape[1:-1])
    return np.stack([np.broadcast_to(y, each) for y in out]) if out else np.zeros((0, *each))


def micro_solve(
    w: A, u: A, x: A, decay: A, start: A, log: bool = False, after: bool = False, chunk: int = 64, width: int = 1
) -> A:
    """`decayed_solve` whose ranks are steps in order, `width` of them at once: the decay of one applies before it."""
    decay = np.exp(decay) if log else decay
    state, out = start, []
    each = np.broadcast_shapes(w.shape[2:-1], x.shape[2:], start.shape[:-1], u.shape[2:-1], decay.shape[2:-1])
    for t in range(x.shape[0]):
        for j in range(0, x.shape[1], width):
            kept, here = decay[t, j] * state, slice(j, j + width)
            y = x[t, here] + (w[t, here] * (kept if after else state)).sum(-1)
            out.append(np.broadcast_to(y, (width, *each)))
            state = kept + (u[t, here] * y[..., None]).sum(0)
    return np.reshape(out, (*x.shape[:2], *each))


def decayed_state(k: A, v: A, decay: A, start: A, log: bool = False) -> A:
    """The S of `decayed_read` after the last position."""
    decay = np.exp(decay) if log else decay
    state = start
    for t in range(k.shape[0]):
        state = decay[t] * state + k[t] * v[t]
    return state


def block_read(q: A, k: A, v: A, decay: A, start: A, log: bool = False, strict: bool = False, chunk: int = 64) -> A:
    """sum over the parts and the last axis of q[t] * S[t], with S[t,p] = sum over m of a[t,p,m] S[t-1,m] + k[t,p] v[t]."""
    decay = np.exp(decay) if log else decay
    state, out = start, []
    for t in range(q.shape[0]):
        before = state
        state = (decay[t] * state[None]).sum(1) + k[t] * v[t][..., None]
        out.append((q[t] * (before if strict else state)).sum((0, -1)))
    each = np.broadcast_shapes(q.shape[2:-1], k.shape[2:-1], v.shape[1:], decay.shape[3:-1], start.shape[1:-1])
    return np.stack([np.broadcast_to(x, each) for x in out]) if out else np.zeros((0, *each))


def block_solve(w: A, u: A, x: A, decay: A, start: A, log: bool = False, chunk: int = 64) -> A:
    """y[t,r] = x[t,r] + the sum over the parts and the last axis of w[t,r] * S[t-1], with S[t,p] = sum over m of
    a[t,p,m] S[t-1,m] + sum over r of u[t,r,p] y[t,r]."""
    decay = np.exp(decay) if log else decay
    state, out = start, []
    for t in range(x.shape[0]):
        out.append(x[t] + (w[t] * state[None]).sum((1, -1)))
        state = (decay[t] * state[None]).sum(1) + (u[t] * out[-1][:, None, ..., None]).sum(0)
    each = np.broadcast_shapes(x.shape[1:], (1, *start.shape[1:-1]), *((1, *a.shape[3:-1]) for a in (w, u, decay)))
    return np.stack([np.broadcast_to(y, each) for y in out]) if out else np.zeros((0, *each))


def block_state(k: A, v: A, decay: A, start: A, log: bool = False) -> A:
    """The S of `block_read` after the last position."""
    decay = np.exp(decay) if log else decay
    state = start
    for t in range(k.shape[0]):
        state = (decay[t] * state[None]).sum(1) + k[t] * v[t]
    return state
