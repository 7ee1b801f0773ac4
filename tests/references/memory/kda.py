"""Kimi delta attention: S = (I - beta k k^T) diag(a) S + beta k v^T; and its layer."""

from __future__ import annotations

import numpy as np

from ..numerics import (
    Example,
    Sizes,
    Tensors,
    causal_filter,
    draws,
    l2_norm,
    linear,
    rms_norm,
    sigmoid,
    silu,
    softplus,
    weights,
)


def kda(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, beta, a = (inputs[name] for name in ("q", "k", "v", "beta", "a"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((D, v.shape[2]))
        for t in range(T):
            erase = np.eye(D) - beta[t, h] * np.outer(k[t, h], k[t, h])
            state = erase @ np.diag(np.exp(a[t, h])) @ state + beta[t, h] * np.outer(k[t, h], v[t, h])
            o[t, h] = state.T @ q[t, h]
    return {"o": o}


def kda_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4))
    inputs |= {"k": l2_norm(inputs["k"]), "a": -rng.uniform(0.01, 1.5, (T, 3, 5))}
    return inputs | {"beta": rng.uniform(0.1, 1.0, (T, 3))}, {}, {}


def KDA(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (silu(causal_filter(linear(x, params, f"x{name}"), params[f"w{name}"])) for name in ("q", "k", "v"))
    rate = softplus(linear(linear(x, params, "low"), params, "a") + params["dt_bias"])
    mixed = {"q": l2_norm(q) * q.shape[2] ** -0.5, "k": l2_norm(k), "v": v}
    mixed |= {"a": -np.exp(params["A_log"])[:, None] * rate, "beta": sigmoid(linear(x, params, "beta"))}
    gate = sigmoid(linear(linear(x, params, "lowg"), params, "gate"))
    return {"y": linear(params["norm"] * rms_norm(kda(mixed, {}, {})["o"]) * gate, params, "y", contracted=2)}


def KDA_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, R, W = 7, 3, 5, 4, 2, 3
    params = weights(rng, xq=(C, H, D), xk=(C, H, D), xv=(C, H, E), beta=(C, H))
    params |= weights(rng, low=(C, R), a=(R, H, D), lowg=(C, R), gate=(R, H, E)) | weights(rng, 2, y=(H, E, C))
    params |= draws(rng, wq=(W, H, D), wk=(W, H, D), wv=(W, H, E), A_log=(H,), dt_bias=(H, D), norm=(E,))
    params["gate.bias"] = rng.standard_normal((H, E))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E, "R": R, "W": W}
