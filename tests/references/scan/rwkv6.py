"""RWKV-6: the read comes before the update, with a bonus for the current token; the data-dependent token shift."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, layer_norm, linear, log_sigmoid, silu, weights


def rwkv6(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    r, k, v, w, u = (inputs[name] for name in ("r", "k", "v", "w", "u"))
    T, H, D = r.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((D, v.shape[2]))
        for t in range(T):
            new = np.outer(k[t, h], v[t, h])
            o[t, h] = (state + np.diag(u[h]) @ new).T @ r[t, h]
            state = np.diag(np.exp(w[t, h])) @ state + new
    return {"o": o}


def rwkv6_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, r=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), u=(3, 5))
    inputs["w"] = log_sigmoid(rng.standard_normal((T, 3, 5)) + 1)
    return inputs, {}, {}


def RWKV6(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    before = np.vstack([np.zeros((1, x.shape[1])), x[:-1]])
    low = np.tanh(linear(x + (before - x) * params["mx"], params, "mix"))
    parts = []
    for p in range(5):
        parts.append(x + (before - x) * (params["mu"][p] + low[:, p] @ params["w2"][p]))
    decay = params["w0"] + linear(np.tanh(linear(parts[0], params, "lw")), params, "w")
    k, v, r = linear(parts[1], params, "k"), linear(parts[2], params, "v"), linear(parts[3], params, "r")
    o = rwkv6({"r": r, "k": k, "v": v, "w": -np.exp(decay), "u": params["u"]}, {}, {})["o"]
    gated = layer_norm(o, eps=64e-5) * silu(linear(parts[4], params, "g"))
    return {"y": linear(gated, params, "y", contracted=2)}


def RWKV6_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, R, RW = 7, 3, 4, 2, 3
    params = weights(rng, mix=(C, 5, R), lw=(C, RW), w=(RW, H, D), k=(C, H, D), v=(C, H, D), r=(C, H, D), g=(C, H, D))
    params |= weights(rng, 2, y=(H, D, C)) | draws(rng, mx=(C,), mu=(5, C), w2=(5, R, C), w0=(H, D), u=(H, D))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "R": R, "RW": RW}
