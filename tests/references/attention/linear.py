"""Linear attention with elu + 1, normalised."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, weights


def feature(x: Array) -> Array:
    """elu(x) + 1: exp(x) below zero, x + 1 above."""
    return np.where(x < 0, np.exp(np.minimum(x, 0)), x + 1)


def linear_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = feature(inputs["q"]), feature(inputs["k"]), inputs["v"]
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state, norm = np.zeros((D, v.shape[2])), np.zeros(D)
        for t in range(T):
            state = state + np.outer(k[t, h], v[t, h])
            norm = norm + k[t, h]
            o[t, h] = state.T @ q[t, h] / (norm @ q[t, h])
    return {"o": o}


def linear_attention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)), {}, {}


def _weighted(inputs: Tensors, last: list[int]) -> Tensors:
    """Each query t averages the values before last[t], weighted by the product of the features."""
    q, k, v = feature(inputs["q"]), feature(inputs["k"]), inputs["v"]
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for t in range(len(q)):
        for h in range(q.shape[1]):
            weight = np.array([q[t, h] @ k[s, h] for s in range(last[t])])
            o[t, h] = weight @ v[: last[t], h] / weight.sum()
    return {"o": o}


def linear_attention_quadratic(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return _weighted(inputs, [t + 1 for t in range(len(inputs["q"]))])


linear_attention_quadratic_example = linear_attention_example


def linear_attention_full(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return _weighted(inputs, [len(inputs["k"])] * len(inputs["q"]))


def linear_attention_full_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T + 2, 3, 5), v=(T + 2, 3, 4)), {}, {}


def LinearAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    return {"y": linear(linear_attention(mixed, {}, {})["o"], params, "y", contracted=2)}


def LinearAttention_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 4
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}
