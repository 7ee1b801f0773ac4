"""Attention whose weights are gates."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, sigmoid, weights


def gated(q: Array, k: Array, v: Array, bias: Array, last: list[int]) -> Array:
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for t in range(len(q)):
        for h in range(q.shape[1]):
            for s in range(last[t]):
                o[t, h] += sigmoid(q[t, h] @ k[s, h] / np.sqrt(q.shape[2]) + bias[h]) * v[s, h]
    return o


def sigmoid_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, b = (inputs[name] for name in ("q", "k", "v", "b"))
    return {"o": gated(q, k, v, b, list(range(1, len(q) + 1)))}


def sigmoid_attention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), b=(3,)), {}, {}


def sigmoid_attention_full(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    return {"o": gated(q, k, v, np.full(q.shape[1], -np.log(len(k))), [len(k)] * len(q))}


def sigmoid_attention_full_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T + 2, 3, 5), v=(T + 2, 3, 4)), {}, {}


def SigmoidAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")} | {"b": params["b"]}
    return {"y": linear(sigmoid_attention(mixed, {}, {})["o"], params, "y", contracted=2)}


def SigmoidAttention_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C)) | draws(rng, b=(H,))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "N": 9}
