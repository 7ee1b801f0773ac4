"""Rotations along two and three axes, and the scores that they give."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws
from .positions import rope, turned


def rope_2d(x: Array, row: float, column: float) -> Array:
    half = len(x) // 2
    return np.concatenate([rope(x[:half], row), rope(x[half:], column)])


def rotary_2d(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k = inputs["q"], inputs["k"]
    rows, columns, H, _ = q.shape
    a = np.zeros((rows, columns, rows, columns, H))
    for i, j, u, v, h in np.ndindex(*a.shape):
        a[i, j, u, v, h] = rope_2d(q[i, j, h], i, j) @ rope_2d(k[u, v, h], u, v)
    return {"a": a}


def rotary_2d_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 2, 8), k=(T, 3, 2, 8)), {}, {}


def rotary_3d(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, x, f = inputs["q"], inputs["k"], inputs["x"], params["f"]
    T, H, _ = q.shape
    w = np.zeros((T, T, H))
    for t in range(T):
        for s in range(T):
            for h in range(H):
                angles = [x[n] @ f[:, h] for n in (t, s)]
                w[t, s, h] = turned(q[t, h], angles[0]) @ turned(k[s, h], angles[1])
    return {"w": w}


def rotary_3d_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 6), k=(T, 2, 6), x=(T, 3)), draws(rng, f=(3, 2, 3)), {}
