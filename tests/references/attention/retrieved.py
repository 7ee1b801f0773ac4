"""A block that attends to itself, then to retrieved neighbours, then passes a gated network."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, gelu, layer_norm, linear, under, weights
from .softmax import CrossAttention, attend


def Retrieved(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, r = inputs["x"], inputs["r"]
    q, k, v = (linear(layer_norm(x), params, name) for name in ("q", "k", "v"))
    u = x + linear(attend(q, k, v, np.ones((len(x), len(x)))), params, "u", contracted=2)
    w = u + CrossAttention({"x": layer_norm(u), "z": r}, under(params, "w"), {})["y"]
    gate, up = gelu(linear(layer_norm(w), params, "gate")), linear(layer_norm(w), params, "up")
    return {"y": w + linear(gate * up, params, "y")}


def Retrieved_example(rng: np.random.Generator, T: int) -> Example:
    C, B, H, D, F = 6, 4, 2, 3, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D), gate=(C, F), up=(C, F), y=(F, C))
    params |= weights(rng, 2, u=(H, D, C))
    params |= draws(rng, **{"u.bias": (C,), "gate.bias": (F,), "up.bias": (F,), "y.bias": (C,)})
    cross = weights(rng, q=(C, H, D), k=(B, H, D), v=(B, H, D)) | weights(rng, 2, y=(H, D, C))
    params |= {f"w.{name}": value for name, value in cross.items()}
    return draws(rng, x=(T, C), r=(T + 1, B)), params, {"H": H, "D": D, "F": F}
