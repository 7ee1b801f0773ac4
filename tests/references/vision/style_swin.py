"""StyleSwin: half the heads in plain windows, half in shifted ones; a norm over all tokens whose gain is the style's."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, weights
from .swin import grid_attention, heads_of


def doubled(q: Array, k: Array, v: Array, bias: Array, w: int) -> Array:
    half = q.shape[2] // 2
    halves = [(slice(0, half), 0), (slice(half, None), w // 2)]
    return np.concatenate(
        [grid_attention(q[:, :, s], k[:, :, s], v[:, :, s], bias[s], w, shift) for s, shift in halves], axis=2
    )


def double_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": doubled(*(inputs[name] for name in ("q", "k", "v", "bias")), sizes["w"])}


def double_attention_example(rng: np.random.Generator, T: int) -> Example:
    w, H = 3, 4
    shapes = {"q": (T, 4, H, 3), "k": (T, 4, H, 3), "v": (T, 4, H, 2), "bias": (H, 2 * w - 1, 2 * w - 1)}
    return draws(rng, **shapes), {}, {"w": w}


def StyleAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, style = inputs["x"], inputs["style"]
    z = (x - x.mean(axis=(0, 1))) / np.sqrt(x.var(axis=(0, 1)) + 1e-5)
    z = (1 + linear(style, params, "gamma")) * z + linear(style, params, "beta")
    o = doubled(*heads_of(z, params, sizes["D"]), params["bias"], sizes["w"])
    return {"y": x + linear(o, params, "y", 2)}


def StyleAttention_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, w, S = 4, 2, 3, 2, 3
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D), gamma=(S, C), beta=(S, C)) | weights(rng, 2, y=(H, D, C))
    biases = {"q.bias": (H, D), "k.bias": (H, D), "v.bias": (H, D), "y.bias": (C,), "gamma.bias": (C,), "beta.bias": (C,)}
    params |= draws(rng, bias=(H, 2 * w - 1, 2 * w - 1), **biases)
    return draws(rng, x=(T, 3, C), style=(S,)), params, {"H": H, "D": D, "w": w}
