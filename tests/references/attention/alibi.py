"""Attention with a bias that falls with the distance, the slopes by the recipe of powers of two."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, weights
from .positions import alibi_slope
from .softmax import pool


def linear_bias(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, m = (inputs[name] for name in ("q", "k", "v", "m"))
    T, H, D = q.shape
    score = np.zeros((T, T, H))
    for t in range(T):
        for s in range(t + 1):
            for h in range(H):
                score[t, s, h] = q[t, h] @ k[s, h] / np.sqrt(D) - m[h] * (t - s)
    return {"o": pool(score, v, np.tri(T))}


def linear_bias_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), m=(3,)), {}, {}


def alibi(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    heads = inputs["q"].shape[1]
    return linear_bias(inputs | {"m": np.array([alibi_slope(h, heads) for h in range(heads)])}, {}, {})


def alibi_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 6, 5), k=(T, 6, 5), v=(T, 6, 4)), {}, {}


def Alibi(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    return {"y": linear(alibi(mixed, {}, {})["o"], params, "y", contracted=2)}


def Alibi_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 4, 3
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}
