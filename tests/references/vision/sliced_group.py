"""SReT: attention in slices of the sequence, repeated over permuted tokens."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, layer_norm, linear, softmax, weights


def sliced(q: Array, k: Array, v: Array, G: int) -> Array:
    pieces = []
    for qs, ks, vs in zip(*(np.split(x, G) for x in (q, k, v)), strict=True):
        o = np.zeros((*qs.shape[:2], vs.shape[-1]))
        for n in range(len(qs)):
            for h in range(qs.shape[1]):
                o[n, h] = softmax(ks[:, h] @ qs[n, h] / np.sqrt(qs.shape[-1])) @ vs[:, h]
        pieces.append(o)
    return np.concatenate(pieces)


def sliced_group_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": sliced(inputs["q"], inputs["k"], inputs["v"], sizes["G"])}


def sliced_group_attention_example(rng: np.random.Generator, T: int) -> Example:
    N, H = 3 * T, 2
    return draws(rng, q=(N, H, 3), k=(N, H, 3), v=(N, H, 2)), {}, {"G": 3}


def SReT(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z, a, b = inputs["x"], params["a"], params["b"]
    for r, order in enumerate(inputs["pi"]):
        s = layer_norm(z[order])
        o = sliced(linear(s, params, "q"), linear(s, params, "k"), linear(s, params, "v"), sizes["G"])
        back = np.empty_like(z)
        back[order] = linear(o, params, "w", 2)
        u = a[0] * z + a[1] * back
        t = a[2] * u + a[3] * linear(gelu(linear(layer_norm(u), params, "f")), params, "t")
        own = {name: value[r] for name, value in params.items() if name.split(".")[0] in ("p", "z")}
        z = b[r, 0] * t + b[r, 1] * linear(gelu(linear(layer_norm(t), own, "p")), own, "z")
    return {"y": z}


def SReT_example(rng: np.random.Generator, T: int) -> Example:
    N, R, C, H, D, M = 2 * T, 2, 4, 2, 3, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D), f=(C, M), t=(M, C)) | weights(rng, 2, w=(H, D, C))
    biases = {"q.bias": (H, D), "k.bias": (H, D), "v.bias": (H, D), "w.bias": (C,), "f.bias": (M,), "t.bias": (C,)}
    params |= draws(rng, **biases, **{"p.weight": (R, C, M), "p.bias": (R, M), "z.weight": (R, M, C), "z.bias": (R, C)})
    params |= draws(rng, a=(4,), b=(R, 2))
    orders = np.stack([rng.permutation(N) for _ in range(R)])
    return draws(rng, x=(N, C)) | {"pi": orders}, params, {"H": H, "D": D, "G": 2, "M": M}
