"""TTT-linear: one gradient step after every token, and as published with a norm and mini-batches."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, l2_norm, layer_norm


def ttt_plain(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The gradient of half the squared error, k (k W - v)."""
    q, k, v, eta = (inputs[name] for name in ("q", "k", "v", "eta"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        W = np.zeros((D, v.shape[2]))
        for t in range(T):
            W = W - eta[t, h] * np.outer(k[t, h], k[t, h] @ W - v[t, h])
            o[t, h] = q[t, h] @ W
    return {"o": o}


def ttt_plain_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4))
    return inputs | {"k": l2_norm(inputs["k"]), "eta": rng.uniform(0.1, 1.0, (T, 3))}, {}, {}


def miss_gradient(z: Array, r: Array, gamma: Array, beta: Array) -> Array:
    """The gradient of half of |gamma * norm(z) + beta - r|^2 in z, by hand."""
    sd = np.sqrt(z.var() + 1e-6)
    normed = (z - z.mean()) / sd
    g = (gamma * normed + beta - r) * gamma
    return (g - g.mean() - normed * (g * normed).mean()) / sd


def ttt_linear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """Mini-batch after mini-batch, each token's weights summed afresh from the gradients up to it."""
    q, k, v, lr, pos = (inputs[name] for name in ("q", "k", "v", "lr", "pos"))
    T, H, m = *q.shape[:2], sizes["m"]
    o = np.zeros_like(v)
    for h in range(H):
        gamma, beta, W0, b0 = (inputs[name][h] for name in ("gamma", "beta", "Ws", "bs"))
        for start in range(0, T, m):
            batch = range(start, min(start + m, T))
            G = {j: miss_gradient(k[j, h] @ W0 + b0, v[j, h] - k[j, h], gamma, beta) for j in batch}
            for t in batch:
                rates = {j: pos[t - start] * lr[j, h] for j in range(start, t + 1)}
                W = W0 - sum(rate * np.outer(k[j, h], G[j]) for j, rate in rates.items())
                b = b0 - sum(rate * G[j] for j, rate in rates.items())
                o[t, h] = q[t, h] + gamma * layer_norm(q[t, h] @ W + b) + beta
            W0, b0 = W, b
    return {"o": o}


def ttt_linear_example(rng: np.random.Generator, T: int) -> Example:
    H, D, m = 2, 4, 3
    inputs = draws(rng, q=(T, H, D), k=(T, H, D), v=(T, H, D), gamma=(H, D), beta=(H, D), Ws=(H, D, D), bs=(H, D))
    return inputs | {"lr": rng.uniform(0.01, 0.1, (T, H)), "pos": 1 / np.arange(1, m + 1)}, {}, {"m": m}


ttt_linear_dual, ttt_linear_dual_example = ttt_linear, ttt_linear_example
