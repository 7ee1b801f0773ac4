"""Attention as an RNN: each prefix is attended to with the same learned query."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, softmax


def aaren(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    k, v, q = inputs["k"], inputs["v"], params["q"]
    T, H, D = k.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        score = np.array([q[h] @ k[t, h] for t in range(T)]) / np.sqrt(D)
        for t in range(T):
            o[t, h] = softmax(score[: t + 1]) @ v[: t + 1, h]
    return {"o": o}


def aaren_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, k=(T, 3, 5), v=(T, 3, 4)), draws(rng, q=(3, 5)), {}
