"""IA-RED2: attention among the kept tokens, which is what a shorter sequence does."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, layer_norm, linear, sigmoid, softmax, weights


def among(q: Array, k: Array, v: Array, keep: Array) -> Array:
    own = np.flatnonzero(keep)
    o = np.zeros((*q.shape[:2], v.shape[-1]))
    for n in own:
        for h in range(q.shape[1]):
            o[n, h] = softmax(k[own, h] @ q[n, h] / np.sqrt(q.shape[-1])) @ v[own, h]
    return o


def kept_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": among(*(inputs[name] for name in ("q", "k", "v", "keep")))}


def kept_attention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 3), k=(T, 2, 3), v=(T, 2, 4)) | {"keep": rng.random(T) < 0.6}, {}, {}


packed_kept_attention = kept_attention
packed_kept_attention_example = kept_attention_example


def InformativeBlock(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    asked = linear(inputs["policy"], params, "b1")
    informative = sigmoid((linear(x, params, "a") * asked).sum(axis=-1)).mean(axis=-1)
    keep = informative >= 0.5
    o = among(*(linear(layer_norm(x), params, name) for name in "qkv"), keep)
    u = x + linear(o, params, "u", 2)
    y = u + linear(gelu(linear(layer_norm(u), params, "f")), params, "y")
    return {"y": np.where(keep[:, None], y, 0), "keep": keep * 1.0}


def InformativeBlock_example(rng: np.random.Generator, T: int) -> Example:
    C, B, H, D, M = 4, 3, 2, 3, 5
    params = weights(rng, a=(C, H, D), b1=(B, H, D), q=(C, H, D), k=(C, H, D), v=(C, H, D), f=(C, M), y=(M, C))
    params |= weights(rng, 2, u=(H, D, C)) | draws(rng, **{"f.bias": (M,), "y.bias": (C,)})
    return draws(rng, x=(T, C), policy=(B,)), params, {"H": H, "D": D, "M": M}
