"""Gated linear attention: a decay for each key feature, before the write."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, log_sigmoid, rms_norm, silu, weights


def gla(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, g = (inputs[name] for name in ("q", "k", "v", "g"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((D, v.shape[2]))
        for t in range(T):
            state = np.diag(np.exp(g[t, h])) @ state + np.outer(k[t, h], v[t, h])
            o[t, h] = state.T @ (q[t, h] * D**-0.5)
    return {"o": o}


def gla_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4))
    inputs["g"] = log_sigmoid(rng.standard_normal((T, 3, 5)) + 1)
    return inputs, {}, {}


def GLA(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (linear(x, params, name) for name in ("q", "k", "v"))
    g = log_sigmoid(linear(linear(x, params, "low"), params, "g")) / 16
    o = gla({"q": q, "k": k, "v": v, "g": g}, {}, {})["o"]
    gated = rms_norm(o) * silu(linear(x, params, "gate"))
    return {"y": linear(gated, params, "y", contracted=2)}


def GLA_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, R = 9, 3, 2, 5, 4
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, E), low=(C, R), g=(R, H, D), gate=(C, H, E))
    params |= weights(rng, 2, y=(H, E, C)) | {"g.bias": rng.standard_normal((H, D))}
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E, "R": R}
