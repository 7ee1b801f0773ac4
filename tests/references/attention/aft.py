"""The attention-free transformer: for each feature a weighted mean of the values, the weights exp(key + bias)."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, sigmoid, weights


def aft_full(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, w = (inputs[name] for name in ("q", "k", "v", "w"))
    o = np.zeros(q.shape)
    for t in range(len(q)):
        above, below = np.zeros(q.shape[1]), np.zeros(q.shape[1])
        for s in range(t + 1):
            above += np.exp(k[s] + w[t, s]) * v[s]
            below += np.exp(k[s] + w[t, s])
        o[t] = sigmoid(q[t]) * above / below
    return {"o": o}


def aft_full_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 5), k=(T, 5), v=(T, 5), w=(T, T)), {}, {}


def aft_simple(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return aft_full(inputs | {"w": np.zeros((len(inputs["q"]),) * 2)}, {}, {})


def aft_simple_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 5), k=(T, 5), v=(T, 5)), {}, {}


def aft_local(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    near = np.array([[t - s < sizes["W"] for s in range(len(inputs["q"]))] for t in range(len(inputs["q"]))])
    return aft_full(inputs | {"w": np.where(near, inputs["w"], 0)}, {}, {})


def aft_local_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 5), k=(T, 5), v=(T, 5), w=(T, T)), {}, {"W": 3}


def aft_conv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, b = (inputs[name] for name in ("q", "k", "v", "b"))
    o = np.zeros(q.shape)
    for h in range(q.shape[1]):
        w = np.array([[b[h, t - s] if 0 <= t - s < b.shape[1] else 0 for s in range(len(q))] for t in range(len(q))])
        o[:, h] = aft_full({"q": q[:, h], "k": k[:, h], "v": v[:, h], "w": w}, {}, {})["o"]
    return {"o": o}


def aft_conv_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 5), b=(3, 4)), {}, {}


def AFT(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")} | {"b": params["b"]}
    return {"y": linear(aft_conv(mixed, {}, {})["o"], params, "y", contracted=2)}


def AFT_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, W = 7, 3, 4, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C)) | draws(rng, b=(H, W))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "W": W}
