"""OmegaNet: polynomial features, and the layer around the Omega rule."""

from __future__ import annotations

import numpy as np

from ..numerics import (
    Array,
    Example,
    Sizes,
    Tensors,
    causal_filter,
    draws,
    l2_norm,
    linear,
    rms_norm,
    sigmoid,
    silu,
    weights,
)
from .atlas import omega


def features(x: Array, w: Array) -> Array:
    """1, x and its tensor square, each with its weight."""
    square = (x[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], -1)
    return np.concatenate([np.broadcast_to(w[0], (*x.shape[:-1], 1)), w[1] * x, w[2] * square], axis=-1)


def feature_product(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    s, w = (inputs["x"] * inputs["z"]).sum(axis=-1), inputs["w"]
    return {"y": w[0] ** 2 + w[1] ** 2 * s + w[2] ** 2 * s**2}


def feature_product_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4), z=(T, 4), w=(3,)), {}, {}


def OmegaNet(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (silu(causal_filter(linear(x, params, f"x{name}"), params[f"w{name}"])) for name in ("q", "k", "v"))
    mixed = {"q": features(l2_norm(q), params["w"]), "k": features(l2_norm(k), params["w"]), "v": v}
    mixed |= {name: sigmoid(linear(x, params, name)) for name in ("alpha", "eta", "g")}
    o = omega(mixed | {"eta": mixed["eta"] / 16}, {}, {})["o"]
    return {"y": linear(rms_norm(o) * silu(linear(x, params, "gate")), params, "y", contracted=2)}


def OmegaNet_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, L, W = 5, 2, 3, 4, 2, 3
    params = weights(rng, xq=(C, H, D), xk=(C, H, D), xv=(C, H, E), gate=(C, H, E), alpha=(C, H), eta=(C, H))
    params |= weights(rng, g=(C, H, L)) | weights(rng, 2, y=(H, E, C))
    params |= draws(rng, wq=(W, H, D), wk=(W, H, D), wv=(W, H, E)) | {"w": np.array([1.0, 0.8, 0.5])}
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E, "L": L, "W": W}
