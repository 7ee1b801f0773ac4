"""Rotations as products with complex numbers, slopes and buckets one by one; and the scores that they give."""

from __future__ import annotations

import math

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws


def turned(x: Array, angles: Array) -> Array:
    """Neighbours (2m, 2m+1) as one complex number, times exp(i angle[m])."""
    z = (x[0::2] + 1j * x[1::2]) * np.exp(1j * angles)
    return np.stack([z.real, z.imag], axis=1).ravel()


def rope(x: Array, pos: float, base: float = 10000.0) -> Array:
    return turned(x, np.array([pos * base ** (-2 * m / len(x)) for m in range(len(x) // 2)]))


def rope_half(x: Array, pos: float) -> Array:
    half = len(x) // 2
    y = rope(np.stack([x[:half], x[half:]], axis=1).ravel(), pos)
    return np.concatenate([y[0::2], y[1::2]])


def alibi_slope(head: int, heads: int) -> float:
    """The recipe of the paper's code: powers of two are geometric, the others borrow every other slope."""
    power = 2 ** math.floor(math.log2(heads))
    geometric = [2.0 ** (-8 * (n + 1) / power) for n in range(power)]
    denser = [2.0 ** (-8 * (n + 1) / (2 * power)) for n in range(2 * power)]
    return (geometric + denser[0::2])[head]


def t5_bucket(ahead: int, buckets: int = 32, reach: int = 128) -> int:
    half = buckets // 2
    offset, far, exact = (half if ahead > 0 else 0), abs(ahead), half // 2
    if far < exact:
        return offset + far
    return offset + min(half - 1, exact + math.floor(math.log(far / exact) / math.log(reach / exact) * exact))


def rotary(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k = inputs["q"], inputs["k"]
    T, H, _ = q.shape
    a = np.zeros((T, T, H))
    for t in range(T):
        for s in range(T):
            for h in range(H):
                a[t, s, h] = rope(q[t, h], t) @ rope(k[s, h], s)
    return {"a": a}


def rotary_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 6), k=(T, 3, 6)), {}, {}


def rotary_half(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k = inputs["q"], inputs["k"]
    T, H, _ = q.shape
    a = np.zeros((T, T, H))
    for t in range(T):
        for s in range(T):
            for h in range(H):
                a[t, s, h] = rope_half(q[t, h], t) @ rope_half(k[s, h], s)
    return {"a": a}


rotary_half_example = rotary_example
