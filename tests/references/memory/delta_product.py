"""DeltaProduct: the transition of a token is a product of generalised Householder matrices; and its layer."""

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


def delta_product(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, beta, a = (inputs[name] for name in ("q", "k", "v", "beta", "a"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[3]))
    for h in range(H):
        state = np.zeros((D, v.shape[3]))
        for t in range(T):
            transition, write = np.exp(a[t, h]) * np.eye(D), np.zeros_like(state)
            for key, value, rate in zip(k[t, :, h], v[t, :, h], beta[t, :, h], strict=True):
                householder = np.eye(D) - rate * np.outer(key, key)
                transition, write = householder @ transition, householder @ write + rate * np.outer(key, value)
            state = transition @ state + write
            o[t, h] = state.T @ q[t, h]
    return {"o": o}


def delta_product_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 2, 3, 5), v=(T, 2, 3, 4), a=(T, 3))
    inputs |= {"k": l2_norm(inputs["k"]), "a": log_sigmoid(inputs["a"] + 1)}
    return inputs | {"beta": rng.uniform(0.1, 1.9, (T, 2, 3))}, {}, {}


def DeltaProduct(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (silu(causal_filter(linear(x, params, f"x{name}"), params[f"w{name}"])) for name in ("q", "k", "v"))
    mixed = {"q": l2_norm(q) * q.shape[2] ** -0.5, "k": l2_norm(k), "v": v}
    mixed |= {"a": -np.exp(params["A_log"]) * softplus(linear(x, params, "a") + params["dt_bias"])}
    o = delta_product(mixed | {"beta": 2 * sigmoid(linear(x, params, "beta"))}, {}, {})["o"]
    gated = params["norm"] * rms_norm(o) * silu(linear(x, params, "gate"))
    return {"y": linear(gated, params, "y", contracted=2)}


def DeltaProduct_example(rng: np.random.Generator, T: int) -> Example:
    C, S, H, D, E, W = 7, 2, 3, 5, 4, 3
    params = weights(rng, xq=(C, H, D), xk=(C, S, H, D), xv=(C, S, H, E), beta=(C, S, H), a=(C, H), gate=(C, H, E))
    params |= weights(rng, 2, y=(H, E, C)) | draws(rng, wq=(W, H, D), wk=(W, S, H, D), wv=(W, S, H, E))
    params |= draws(rng, A_log=(H,), dt_bias=(H,), norm=(E,))
    return draws(rng, x=(T, C)), params, {"S": S, "H": H, "D": D, "E": E, "W": W}
