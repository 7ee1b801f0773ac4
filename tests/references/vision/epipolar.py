"""EPIT: attention in a band of an epipolar plane; a pass over the horizontal planes, then one over the vertical ones."""

from __future__ import annotations

import math

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, layer_norm, softmax


def plane(q: Array, k: Array, v: Array, K: int, W: int) -> Array:
    views, pixels, heads, width = q.shape
    o = np.zeros((views, pixels, heads, v.shape[-1]))
    for u in range(views):
        for i in range(pixels):
            own = slice(max(0, u - K // 2), u + K - K // 2), slice(max(0, i - W // 2), i + W - W // 2)
            for h in range(heads):
                scores = k[own][:, :, h] @ q[u, i, h] / math.sqrt(width)
                o[u, i, h] = softmax(scores.ravel()) @ v[own][:, :, h].reshape(scores.size, -1)
    return o


def epipolar_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": plane(inputs["q"], inputs["k"], inputs["v"], sizes["K"], sizes["W"])}


def epipolar_attention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 5, 2, 3), k=(T, 5, 2, 3), v=(T, 5, 2, 2)), {}, {"K": 4, "W": 3}


def EpipolarPass(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, g = inputs["x"], inputs
    y = np.zeros_like(x)
    for at in np.ndindex(*x.shape[:2]):
        t = x[at] @ g["wi"]
        n = layer_norm(t)
        q, k, v = np.tensordot(n, g["wq"], 1), np.tensordot(n, g["wk"], 1), np.tensordot(t, g["wv"], 1)
        r = t + np.tensordot(plane(q, k, v, sizes["K"], sizes["W"]), g["wo"], 2)
        y[at] = (r + np.maximum(layer_norm(r) @ g["w1"], 0) @ g["w2"]) @ g["wr"]
    return {"y": y}


def matrices(rng: np.random.Generator, C: int) -> Tensors:
    A, H, D, M = 4, 2, 3, 5
    shapes = {"wi": (C, A), "wq": (A, H, D), "wk": (A, H, D), "wv": (A, H, D), "w1": (A, M), "w2": (M, A), "wr": (A, C)}
    return {name: rng.standard_normal(s) / math.sqrt(s[0]) for name, s in shapes.items()} | draws(rng, wo=(H, D, A))


def EpipolarPass_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 2, 3, 4, 3)) | matrices(rng, 3), {}, {"K": 4, "W": 3}


def EPIT(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]                                    # [u, v, i, j, c]
    h = EpipolarPass({"x": x.transpose(1, 3, 0, 2, 4), **params}, {}, sizes)["y"].transpose(2, 0, 3, 1, 4) + x
    return {"y": EpipolarPass({"x": h.transpose(0, 2, 1, 3, 4), **params}, {}, sizes)["y"].transpose(0, 2, 1, 3, 4) + x}


def EPIT_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 3, 4, 2, 3)), matrices(rng, 3), {"A": 4, "H": 2, "D": 3, "M": 5, "K": 4, "W": 3}
