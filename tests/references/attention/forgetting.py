"""Softmax attention whose scores lose the log gates of all tokens between key and query, the query's own included."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, log_sigmoid, weights
from .softmax import pool


def forgetting(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, g = (inputs[name] for name in ("q", "k", "v", "g"))
    T, H, D = q.shape
    score = np.zeros((T, T, H))
    for t in range(T):
        for s in range(t + 1):
            score[t, s] = (q[t] * k[s]).sum(axis=1) / np.sqrt(D) + g[s + 1 : t + 1].sum(axis=0)
    return {"o": pool(score, v, np.tri(T))}


def forgetting_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), g=(T, 3))
    return inputs | {"g": log_sigmoid(inputs["g"])}, {}, {}


def Forgetting(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    mixed["g"] = log_sigmoid(linear(inputs["x"], params, "g"))
    return {"y": linear(forgetting(mixed, {}, {})["o"], params, "y", contracted=2)}


def Forgetting_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D), g=(C, H)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params | {"g.bias": rng.standard_normal(H)}, {"H": H, "D": D}
