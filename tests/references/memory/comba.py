"""Comba: S = (a I - beta k p^T) S + beta k v^T, read with q - correct p; and its layer."""

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
    log_sigmoid,
    rms_norm,
    sigmoid,
    silu,
    softplus,
    weights,
)


def comba(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, p, beta, a = (inputs[name] for name in ("q", "k", "v", "p", "beta", "a"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((D, v.shape[2]))
        for t in range(T):
            transition = np.exp(a[t, h]) * np.eye(D) - beta[t, h] * np.outer(k[t, h], p[t, h])
            state = transition @ state + beta[t, h] * np.outer(k[t, h], v[t, h])
            o[t, h] = state.T @ (q[t, h] - inputs["correct"][h] * p[t, h])
    return {"o": o}


def comba_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), a=(T, 3), correct=(3,))
    inputs |= {"k": l2_norm(inputs["k"]), "a": log_sigmoid(inputs["a"] + 1)}
    return inputs | {"p": 0.6 * inputs["k"], "beta": rng.uniform(0.1, 1.0, (T, 3))}, {}, {}


def Comba(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (silu(causal_filter(linear(x, params, f"x{name}"), params[f"w{name}"])) for name in ("q", "k", "v"))
    q, k = l2_norm(q) * q.shape[2] ** -0.5, l2_norm(k)
    mixed = {"q": q, "k": k, "v": v, "p": sigmoid(params["inner"])[:, None] * k, "correct": params["correct"]}
    mixed |= {"a": -np.exp(params["A_log"]) * softplus(linear(x, params, "a") + params["dt_bias"])}
    o = comba(mixed | {"beta": sigmoid(linear(x, params, "beta"))}, {}, {})["o"]
    gated = params["norm"] * rms_norm(o) * sigmoid(linear(x, params, "gate"))
    return {"y": linear(gated, params, "y", contracted=2)}


def Comba_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, W = 7, 3, 5, 4, 3
    params = weights(rng, xq=(C, H, D), xk=(C, H, D), xv=(C, H, E), beta=(C, H), a=(C, H), gate=(C, H, E))
    params |= weights(rng, 2, y=(H, E, C)) | draws(rng, wq=(W, H, D), wk=(W, H, D), wv=(W, H, E))
    params |= draws(rng, A_log=(H,), dt_bias=(H,), inner=(H,), correct=(H,), norm=(E,))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E, "W": W}
