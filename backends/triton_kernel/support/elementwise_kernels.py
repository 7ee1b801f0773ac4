"""Functions of entries that Triton's language lacks, for expressions that are written from equations."""

import triton
import triton.language as tl


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
    """log(1 / (1 + exp(-x)))"""
    return tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def _sign(x):
    """-1, 0 or 1."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))


@triton.jit
def _log_add(a, b):
    """log(exp(a) + exp(b)); -inf where both are."""
    larger = tl.maximum(a, b)
    shift = tl.where(tl.abs(larger) == float("inf"), 0.0, larger)
    return shift + tl.log(tl.exp(a - shift) + tl.exp(b - shift))
