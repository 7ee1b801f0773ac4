"""The delta rule: S = (I - beta k k^T) S + beta k v^T; and DeltaNet's layer."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, causal_filter, draws, l2_norm, linear, rms_norm, sigmoid, silu, weights


def delta_rule(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, beta = (inputs[name] for name in ("q", "k", "v", "beta"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((D, v.shape[2]))
        for t in range(T):
            erase = np.eye(D) - beta[t, h] * np.outer(k[t, h], k[t, h])
            state = erase @ state + beta[t, h] * np.outer(k[t, h], v[t, h])
            o[t, h] = state.T @ q[t, h]
    return {"o": o}


def delta_rule_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4))
    inputs["k"] = l2_norm(inputs["k"])
    return inputs | {"beta": rng.uniform(0.1, 1.0, (T, 3))}, {}, {}


def DeltaNet(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (silu(causal_filter(linear(x, params, f"x{name}"), params[f"w{name}"])) for name in ("q", "k", "v"))
    mixed = {"q": l2_norm(q) * q.shape[2] ** -0.5, "k": l2_norm(k), "v": v, "beta": sigmoid(linear(x, params, "beta"))}
    return {"y": linear(rms_norm(delta_rule(mixed, {}, {})["o"]), params, "y", contracted=2)}


def DeltaNet_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, W = 7, 3, 5, 4, 3
    params = weights(rng, xq=(C, H, D), xk=(C, H, D), xv=(C, H, E), beta=(C, H)) | weights(rng, 2, y=(H, E, C))
    params |= draws(rng, wq=(W, H, D), wk=(W, H, D), wv=(W, H, E))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E, "W": W}
