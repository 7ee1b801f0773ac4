"""RWKV-5: one constant decay for each key feature, read before the update with a bonus; and its time mixing."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, layer_norm, linear, silu, weights
from .rwkv4 import shifted


def rwkv5(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """As a sum over the past: between s and t stand t - 1 - s decays."""
    r, k, v, w, u = (inputs[name] for name in ("r", "k", "v", "w", "u"))
    o = np.zeros_like(v)
    for t in range(len(r)):
        for s in range(t + 1):
            weight = u if s == t else np.exp((t - 1 - s) * w)
            o[t] += (r[t] * weight * k[s]).sum(axis=-1, keepdims=True) * v[s]
    return {"o": o}


def rwkv5_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, r=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), u=(3, 5))
    return inputs | {"w": -rng.uniform(0.05, 2, (3, 5))}, {}, {}


def RWKV5(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    k, v, r, g = (linear(shifted(x, params["mu"][p]), params, name) for p, name in enumerate("kvrg"))
    o = rwkv5({"r": r, "k": k, "v": v, "w": -np.exp(params["decay"]), "u": params["u"]}, {}, {})["o"]
    normed = params["norm"] * layer_norm(o) + params["norm_bias"]
    return {"y": linear(normed * silu(g), params, "y", contracted=2)}


def RWKV5_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 5, 2, 4
    params = weights(rng, k=(C, H, D), v=(C, H, D), r=(C, H, D), g=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    params |= draws(rng, mu=(4, C), decay=(H, D), u=(H, D), norm=(H, D), norm_bias=(H, D))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}
