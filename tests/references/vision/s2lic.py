"""Checkerboard context: every second token, of odd row + column, looks at the even ones of its window."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, softmax, softplus, weights


def checkered(q: Array, k: Array, v: Array, bias: Array, w: int) -> Array:
    rows, columns, heads, _ = q.shape
    o = np.zeros((rows, columns, heads, v.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            top, left = i // w * w, j // w * w
            window = [(m, n) for m in range(top, min(top + w, rows)) for n in range(left, min(left + w, columns))]
            anchors = [at for at in window if sum(at) % 2 == 0]
            if (i + j) % 2 == 0 or not anchors:
                continue
            for h in range(heads):
                scores = [q[i, j, h] @ k[m, n, h] + bias[h, i - m + w - 1, j - n + w - 1] for m, n in anchors]
                o[i, j, h] = softmax(np.array(scores)) @ np.array([v[at][h] for at in anchors])
    return o


def checkerboard_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": checkered(*(inputs[name] for name in ("q", "k", "v", "bias")), sizes["w"])}


def checkerboard_attention_example(rng: np.random.Generator, T: int) -> Example:
    w, H = 3, 2
    shapes = {"q": (T, 4, H, 3), "k": (T, 4, H, 3), "v": (T, 4, H, 2), "bias": (H, 2 * w - 1, 2 * w - 1)}
    return draws(rng, **shapes), {}, {"w": w}


def CheckerboardContext(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, z = inputs["x"], inputs["z"]
    q = linear(z, params, "q") / np.sqrt(sizes["D"])
    o = checkered(q, linear(x, params, "k"), linear(x, params, "v"), params["bias"], sizes["w"])
    both = {name: linear(o, params, name, 2) + linear(z, params, f"{name}_2") for name in ("mu", "scale")}
    return {"mu": both["mu"], "scale": softplus(both["scale"])}


def CheckerboardContext_example(rng: np.random.Generator, T: int) -> Example:
    C, B, H, D, w = 4, 3, 2, 3, 2
    params = weights(rng, q=(B, H, D), k=(C, H, D), v=(C, H, D), mu_2=(B, C), scale_2=(B, C))
    params |= weights(rng, 2, mu=(H, D, C), scale=(H, D, C))
    biases = {"q.bias": (H, D), "k.bias": (H, D), "v.bias": (H, D), "mu_2.bias": (C,), "scale_2.bias": (C,)}
    params |= draws(rng, bias=(H, 2 * w - 1, 2 * w - 1), **biases)
    return draws(rng, x=(T, 3, C), z=(T, 3, B)), params, {"H": H, "D": D, "w": w}
