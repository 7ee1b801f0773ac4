"""The difference of two softmax attentions, and the layer."""

from __future__ import annotations

import math

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, rms_norm, weights
from .softmax import attend


def differential(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, lam = (inputs[name] for name in ("q", "k", "v", "lam"))
    past = np.tri(len(q))
    return {"o": attend(q[:, :, 0], k[:, :, 0], v, past) - lam[:, None] * attend(q[:, :, 1], k[:, :, 1], v, past)}


def differential_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 2, 5), k=(T, 3, 2, 5), v=(T, 3, 4)) | {"lam": np.array([0.7, 0.2, -0.4])}, {}, {}


def Differential(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    start = 0.8 - 0.6 * math.exp(-0.3 * (sizes["depth"] - 1))
    first, second = (math.exp(params["lq"][i] @ params["lk"][i]) for i in range(2))
    o = differential(mixed | {"lam": np.full(sizes["H"], first - second + start)}, {}, {})["o"]
    return {"y": linear((1 - start) * params["norm"] * rms_norm(o), params, "y", contracted=2)}


def Differential_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 4
    params = weights(rng, q=(C, H, 2, D), k=(C, H, 2, D), v=(C, H, 2 * D)) | weights(rng, 2, y=(H, 2 * D, C))
    params |= draws(rng, lq=(2, D), lk=(2, D), norm=(2 * D,))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "depth": 3}
