"""HAT: overlapping key windows read from a padded picture; convolutions and channel gains beside window attention."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, layer_norm, linear, sigmoid, softmax, under, weights
from .swin import block_params, grid_attention, heads_of


def overlap(q: Array, k: Array, v: Array, bias: Array, w: int, halo: int) -> Array:
    """Zeros of the padding take part. The bias is by the place of the query less that of the key in its larger window."""
    rows, columns, heads, _ = q.shape
    before, size = halo // 2, w + halo
    around = ((before, 2 * w + halo), (before, 2 * w + halo), (0, 0), (0, 0))
    padded_keys, padded_values = np.pad(k, around), np.pad(v, around)
    o = np.zeros((rows, columns, heads, v.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            top, left = i // w * w, j // w * w
            keys, values = (t[top : top + size, left : left + size] for t in (padded_keys, padded_values))
            for h in range(heads):
                scores = np.tensordot(keys[:, :, h], q[i, j, h], 1)
                for m in range(size):
                    for n in range(size):
                        scores[m, n] += bias[h, i - top - m + size - 1, j - left - n + size - 1]
                o[i, j, h] = softmax(scores.ravel()) @ values[:, :, h].reshape(size * size, -1)
    return o


def overlapping_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": overlap(*(inputs[name] for name in ("q", "k", "v", "bias")), sizes["w"], sizes["halo"])}


def overlapping_attention_example(rng: np.random.Generator, T: int) -> Example:
    w, halo, H = 3, 2, 2
    side = 2 * w + halo - 1
    return draws(rng, q=(T, 4, H, 3), k=(T, 4, H, 3), v=(T, 4, H, 2), bias=(H, side, side)), {}, {"w": w, "halo": halo}


def convolved(x: Array, weight: Array, bias: Array) -> Array:
    """3 x 3, zeros outside; weight[row, column, in, out]."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    y = np.zeros((*x.shape[:2], weight.shape[-1])) + bias
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] += np.tensordot(padded[i : i + 3, j : j + 3], weight, 3)
    return y


def ChannelAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z = gelu(convolved(inputs["x"], params["z.weight"], params["z.bias"]))
    a = convolved(z, params["a.weight"], params["a.bias"])
    squeezed = np.maximum(linear(a.mean(axis=(0, 1)), params, "r"), 0)
    return {"y": a * sigmoid(linear(squeezed, params, "g"))}


def channel_params(rng: np.random.Generator, C: int, B: int, R: int) -> Tensors:
    params = weights(rng, 3, z=(3, 3, C, B), a=(3, 3, B, C)) | weights(rng, r=(C, R), g=(R, C))
    return params | draws(rng, **{"z.bias": (B,), "a.bias": (C,), "r.bias": (R,), "g.bias": (C,)})


def ChannelAttention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 3, 4)), channel_params(rng, 4, 2, 3), {"B": 2, "R": 3}


def after(x: Array, branch: Array, params: Tensors) -> Array:
    """The residual sum, and the feed-forward block after it."""
    u = x + branch
    return u + linear(gelu(linear(layer_norm(u), params, "f")), params, "y")


def HybridBlock(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    z = layer_norm(x)
    o = grid_attention(*heads_of(z, params, sizes["D"]), params["bias"], sizes["w"], sizes["shift"])
    channels = ChannelAttention({"x": z}, under(params, "ca"), sizes)["y"]
    return {"y": after(x, linear(o, params, "u", 2) + 0.01 * channels, params)}


def HybridBlock_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, w, M, B, R = 4, 2, 3, 2, 5, 2, 3
    params = block_params(rng, C, H, D, w, M)
    params |= {f"ca.{name}": value for name, value in channel_params(rng, C, B, R).items()}
    return draws(rng, x=(T, 3, C)), params, {"H": H, "D": D, "w": w, "shift": 1, "B": B, "R": R, "M": M}


def OverlappingBlock(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    o = overlap(*heads_of(layer_norm(x), params, sizes["D"]), params["bias"], sizes["w"], sizes["halo"])
    return {"y": after(x, linear(o, params, "u", 2), params)}


def OverlappingBlock_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, w, halo, M = 4, 2, 3, 2, 2, 5
    params = block_params(rng, C, H, D, w, M) | draws(rng, bias=(H, 2 * w + halo - 1, 2 * w + halo - 1))
    return draws(rng, x=(T, 3, C)), params, {"H": H, "D": D, "w": w, "halo": halo, "M": M}
