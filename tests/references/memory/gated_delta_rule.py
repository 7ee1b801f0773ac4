"""The gated delta rule: S = a (I - beta k k^T) S + beta k v^T; and its layer."""

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


def gated_delta_rule(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, beta, a = (inputs[name] for name in ("q", "k", "v", "beta", "a"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((D, v.shape[2]))
        for t in range(T):
            erase = np.eye(D) - beta[t, h] * np.outer(k[t, h], k[t, h])
            state = np.exp(a[t, h]) * erase @ state + beta[t, h] * np.outer(k[t, h], v[t, h])
            o[t, h] = state.T @ q[t, h]
    return {"o": o}


def gated_delta_rule_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), a=(T, 3))
    inputs |= {"k": l2_norm(inputs["k"]), "a": log_sigmoid(inputs["a"] + 1)}
    return inputs | {"beta": rng.uniform(0.1, 1.0, (T, 3))}, {}, {}


def gated_delta_rule_gva(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """Key head g serves the |h| / |g| value heads of its group."""
    repeat = inputs["v"].shape[1] // inputs["q"].shape[1]
    q, k = (np.repeat(inputs[name], repeat, axis=1) for name in ("q", "k"))
    return gated_delta_rule(inputs | {"q": q, "k": k}, {}, {})


def gated_delta_rule_gva_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 2, 5), k=(T, 2, 5), v=(T, 6, 3), a=(T, 6))
    inputs |= {"k": l2_norm(inputs["k"]), "a": log_sigmoid(inputs["a"] + 1)}
    return inputs | {"beta": rng.uniform(0.1, 1.0, (T, 6))}, {}, {}


def GatedDeltaNet(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (silu(causal_filter(linear(x, params, f"x{name}"), params[f"w{name}"])) for name in ("q", "k", "v"))
    a = -np.exp(params["A_log"]) * softplus(linear(x, params, "a") + params["dt_bias"])
    mixed = {"q": l2_norm(q) * q.shape[2] ** -0.5, "k": l2_norm(k), "v": v, "a": a}
    o = gated_delta_rule(mixed | {"beta": sigmoid(linear(x, params, "beta"))}, {}, {})["o"]
    gated = params["norm"] * rms_norm(o) * silu(linear(x, params, "gate"))
    return {"y": linear(gated, params, "y", contracted=2)}


def GatedDeltaNet_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, W = 7, 3, 5, 4, 3
    params = weights(rng, xq=(C, H, D), xk=(C, H, D), xv=(C, H, E), beta=(C, H), a=(C, H), gate=(C, H, E))
    params |= weights(rng, 2, y=(H, E, C)) | draws(rng, wq=(W, H, D), wk=(W, H, D), wv=(W, H, E))
    params |= draws(rng, A_log=(H,), dt_bias=(H,), norm=(E,))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E, "W": W}
