"""Restore-RWKV: the shift branch by branch, and the layer."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, layer_norm, linear, sigmoid, weights
from .bi_wkv import re_wkv


def filtered(x: Array, w: Array) -> Array:
    """Each channel with its own square filter, zeros around the image."""
    reach = len(w) // 2
    padded = np.pad(x, [(reach, reach), (reach, reach), (0, 0)])
    rows, columns, _ = x.shape
    return sum(w[a, b] * padded[a : a + rows, b : b + columns] for a in range(len(w)) for b in range(len(w)))


def omni_shift(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, alpha, w1, w3, w5 = (inputs[name] for name in ("x", "alpha", "w1", "w3", "w5"))
    return {"y": alpha[0] * x + alpha[1] * w1 * x + alpha[2] * filtered(x, w3) + alpha[3] * filtered(x, w5)}


def omni_shift_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4, 3), alpha=(4,), w1=(3,), w3=(3, 3, 3), w5=(5, 5, 3)), {}, {}


def RestoreRWKV(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]

    def shifted(z: Array, s: int) -> Array:
        branches = {name: params[name][s] for name in ("w1", "w3", "w5")}
        return omni_shift({"x": layer_norm(z), "alpha": params["alpha"][:, s], **branches}, {}, {})["y"]

    o = shifted(x, 0)
    tokens = x.shape[0] * x.shape[1]
    mixed = {"k": linear(o, params, "k"), "v": linear(o, params, "v")}
    mixed |= {"w": params["decay"] / tokens, "u": params["u"] / tokens}
    gated = sigmoid(linear(o, params, "g")) * re_wkv(mixed, {}, {})["y"]
    z = x + params["gain"][0] * linear(gated, params, "z")
    o = shifted(z, 1)
    h = np.maximum(linear(o, params, "h"), 0) ** 2
    return {"y": z + params["gain"][1] * sigmoid(linear(o, params, "y")) * linear(h, params, "y_2")}


def RestoreRWKV_example(rng: np.random.Generator, T: int) -> Example:
    c, F = 3, 5
    params = weights(rng, k=(c, c), v=(c, c), g=(c, c), z=(c, c), h=(c, F), y=(c, c), y_2=(F, c))
    params |= draws(rng, alpha=(4, 2), w1=(2, c), w3=(2, 3, 3, c), w5=(2, 5, 5, c), decay=(2, c), u=(2, c), gain=(2, c))
    return draws(rng, x=(T, 4, c)), params, {"F": F}
