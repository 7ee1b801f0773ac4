"""Swin v2: cosine scores, a bias from log-spaced offsets, norms after the branches."""

from __future__ import annotations

import math

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, l2_norm, layer_norm, linear, sigmoid, weights
from .swin import grid_attention


def spaced(offset: int, w: int) -> float:
    """The logarithm of an offset, that of 7 being 1 in windows of 8."""
    u = 8 * offset / max(w - 1, 1)
    return math.copysign(math.log2(1 + abs(u)), u) / 3


def log_position_bias(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    w1, b1, w2 = (inputs[name] for name in ("w1", "b1", "w2"))
    w = sizes["w"]
    bias = np.zeros((w2.shape[1], 2 * w - 1, 2 * w - 1))
    for y in range(1 - w, w):
        for x in range(1 - w, w):
            hidden = np.maximum(np.array([spaced(y, w), spaced(x, w)]) @ w1 + b1, 0)
            bias[:, y + w - 1, x + w - 1] = 16 * sigmoid(hidden @ w2)
    return {"bias": bias}


def log_position_bias_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, w1=(2, T), b1=(T,), w2=(T, 3)), {}, {"w": 3}


def SwinV2Block(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    bias = log_position_bias(params, {}, sizes)["bias"]
    sharp = np.minimum(np.exp(params["tau"]), 100)[:, None]
    q, k, v = (linear(x, params, name) for name in "qkv")
    o = grid_attention(sharp * l2_norm(q), l2_norm(k), v, bias, sizes["w"], sizes["shift"])
    u = x + normed(linear(o, params, "a", 2), params, "a")
    return {"y": u + normed(linear(gelu(linear(u, params, "f")), params, "b"), params, "f")}


def normed(x: Array, params: Tensors, name: str) -> Array:
    return params[f"g{name}"] * layer_norm(x) + params[f"b{name}"]


def SwinV2Block_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, w, P, M = 4, 2, 3, 2, 5, 6
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D), f=(C, M), b=(M, C)) | weights(rng, 2, a=(H, D, C))
    biases = {"q.bias": (H, D), "v.bias": (H, D), "a.bias": (C,), "f.bias": (M,), "b.bias": (C,)}
    params |= draws(rng, tau=(H,), w1=(2, P), b1=(P,), w2=(P, H), ga=(C,), ba=(C,), gf=(C,), bf=(C,), **biases)
    return draws(rng, x=(T, 3, C)), params, {"H": H, "D": D, "w": w, "shift": 1, "P": P, "M": M}
