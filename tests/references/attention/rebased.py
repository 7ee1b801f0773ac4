"""Linear attention with squared products, and the layer that normalises, scales and shifts queries and keys."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, layer_norm, linear, weights


def rebased(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for t in range(len(q)):
        for h in range(q.shape[1]):
            weight = np.array([(q[t, h] @ k[s, h]) ** 2 for s in range(t + 1)])
            o[t, h] = weight @ v[: t + 1, h] / (weight.sum() + 1e-5)
    return {"o": o}


def rebased_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 4), k=(T, 3, 4), v=(T, 3, 5)), {}, {}


rebased_quadratic = rebased
rebased_quadratic_example = rebased_example


def ReBased(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {"v": linear(inputs["x"], params, "v")}
    for name in ("q", "k"):
        normed = layer_norm(linear(inputs["x"], params, f"x{name}"))
        mixed[name] = (params[f"g{name}"] * normed + params[f"b{name}"]) / normed.shape[-1] ** 0.25
    return {"y": linear(rebased(mixed, {}, {})["o"], params, "y", contracted=2)}


def ReBased_example(rng: np.random.Generator, T: int) -> Example:
    C, H, F, D = 7, 3, 4, 5
    params = weights(rng, xq=(C, H, F), xk=(C, H, F), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    params |= draws(rng, gq=(H, F), bq=(H, F), gk=(H, F), bk=(H, F))
    return draws(rng, x=(T, C)), params, {"H": H, "F": F, "D": D}
