"""Window attention by labels: two tokens meet where their windows, which begin at `shift`, are the same; and the block."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, layer_norm, linear, softmax, weights


def grid_attention(q: Array, k: Array, v: Array, bias: Array, w: int, shift: int) -> Array:
    rows, columns, heads, _ = q.shape
    o = np.zeros((rows, columns, heads, v.shape[-1]))
    label = {(i, j): ((i - shift) // w, (j - shift) // w) for i in range(rows) for j in range(columns)}
    for i, j in label:
        met = [at for at in label if label[at] == label[i, j]]
        for h in range(heads):
            scores = [q[i, j, h] @ k[at][h] + bias[h, i - at[0] + w - 1, j - at[1] + w - 1] for at in met]
            o[i, j, h] = softmax(np.array(scores)) @ np.array([v[at][h] for at in met])
    return o


def window_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": grid_attention(*(inputs[name] for name in ("q", "k", "v", "bias")), sizes["w"], sizes["shift"])}


def window_attention_example(rng: np.random.Generator, T: int) -> Example:
    w, H = 3, 2
    shapes = {"q": (T, 4, H, 3), "k": (T, 4, H, 3), "v": (T, 4, H, 2), "bias": (H, 2 * w - 1, 2 * w - 1)}
    return draws(rng, **shapes), {}, {"w": w, "shift": 1}


window_attention_dense = window_attention
window_attention_dense_example = window_attention_example


def heads_of(z: Array, params: Tensors, d: int) -> list[Array]:
    return [linear(z, params, "q") / np.sqrt(d), linear(z, params, "k"), linear(z, params, "v")]


def SwinBlock(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    o = grid_attention(*heads_of(layer_norm(x), params, sizes["D"]), params["bias"], sizes["w"], sizes["shift"])
    u = x + linear(o, params, "u", 2)
    return {"y": u + linear(gelu(linear(layer_norm(u), params, "f")), params, "y")}


def block_params(rng: np.random.Generator, C: int, H: int, D: int, w: int, M: int) -> Tensors:
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D), f=(C, M), y=(M, C)) | weights(rng, 2, u=(H, D, C))
    biases = {"q.bias": (H, D), "k.bias": (H, D), "v.bias": (H, D), "u.bias": (C,), "f.bias": (M,), "y.bias": (C,)}
    return params | draws(rng, bias=(H, 2 * w - 1, 2 * w - 1), **biases)


def SwinBlock_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, w, M = 4, 2, 3, 2, 5
    sizes = {"H": H, "D": D, "w": w, "shift": 1, "M": M}
    return draws(rng, x=(T, 3, C)), block_params(rng, C, H, D, w, M), sizes
