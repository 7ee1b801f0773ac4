"""Functions that Triton's language lacks, accurate to float32's last bits."""

import triton
import triton.language as tl


@triton.jit
def _expm1_small(x):
    """exp(x) - 1 for |x| < 1/2, to the last bit of float32: its series, innermost term first."""
    tail = 1.0 + x * (1.0 / 8)
    tail = 1.0 + x * (1.0 / 7) * tail
    tail = 1.0 + x * (1.0 / 6) * tail
    tail = 1.0 + x * (1.0 / 5) * tail
    tail = 1.0 + x * (1.0 / 4) * tail
    tail = 1.0 + x * (1.0 / 3) * tail
    tail = 1.0 + x * (1.0 / 2) * tail
    return x * tail


@triton.jit
def _expm1(x):
    """exp(x) - 1"""
    return tl.where(tl.abs(x) < 0.5, _expm1_small(x), tl.exp(x) - 1.0)


@triton.jit
def _decayed(g, x):
    """exp(g) x: near g = 0 as x + expm1(g) x, as exp(g) rounds to the same side every step."""
    slow = tl.abs(g) < 0.5
    rate = tl.where(slow, _expm1_small(g), tl.exp(g))
    return tl.where(slow, x, 0.0) + rate * x


@triton.jit
def _log1p(x):
    """log(1 + x): the quotient undoes the rounding of 1 + x."""
    above = 1.0 + x
    near = (above == 1.0) | (x == float("inf"))
    return tl.where(near, x, tl.log(above) * (x / tl.where(near, 1.0, above - 1.0)))


@triton.jit
def _log_sum(a, b):
    """log(exp(a) + exp(b)); -inf where both are."""
    top = tl.maximum(a, b)
    gap = tl.where(tl.abs(top) == float("inf"), 0.0, tl.minimum(a, b) - top)
    return tl.where(tl.abs(top) == float("inf"), top, top + _log1p(tl.exp(gap)))


@triton.jit
def _round(x):
    """The nearest integer, halves to the even one."""
    down = tl.floor(x)
    up = (x - down > 0.5) | ((x - down == 0.5) & (down * 0.5 != tl.floor(down * 0.5)))
    return tl.where(up, down + 1.0, down)


@triton.jit
def _floor_div(a, b):
    """The quotient of integers rounded down; Triton's own is rounded towards 0."""
    quotient = a // b
    return quotient - tl.where((quotient * b != a) & ((a < 0) != (b < 0)), 1, 0)


@triton.jit
def _tanh(x):
    """Near 0, where a quotient of exponentials loses bits, by its series."""
    e = tl.exp(-2.0 * tl.abs(x))
    far = tl.where(x < 0, e - 1.0, 1.0 - e) / (1.0 + e)
    y = x * x
    near = x * (1.0 - y * (1.0 / 3 - y * (2.0 / 15 - y * (17.0 / 315))))
    return tl.where(tl.abs(x) < 0.2, near, far)


@triton.jit
def _log_sigmoid(x):
    """log(1 / (1 + exp(-x))): as a decay it has to be right near 0."""
    return tl.minimum(x, 0.0) - _log1p(tl.exp(-tl.abs(x)))


@triton.jit
def _sign(x):
    """-1, 0 or 1."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))
