"""TTT-linear: one gradient step after every token, and as published with a norm and mini-batches; and its layer."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, l2_norm, layer_norm, linear, sigmoid, weights


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


def turned(x: Array, m: int) -> Array:
    """Pairs of neighbours as complex numbers, turned by the position in the mini-batch."""
    T, _, D = x.shape
    angle = (np.arange(T) % m)[:, None, None] * 10000.0 ** (-np.arange(0, D, 2) / D)
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


def mixed(x: Array, params: Tensors, m: int, base: float) -> Tensors:
    """What the layers of both files hand to their memory."""
    inputs = {"q": turned(linear(x, params, "a"), m), "k": turned(linear(x, params, "b"), m), "v": linear(x, params, "v")}
    inputs["lr"] = base * sigmoid(linear(x, params, "lr")) / inputs["q"].shape[2]
    inputs["pos"] = np.maximum(1 / np.arange(1, m + 1) + params["learn"], 0)
    return inputs | params


def closed(o: Array, params: Tensors) -> Array:
    """One norm over all heads, then the last linear map."""
    normed = layer_norm(o.reshape(len(o), -1)).reshape(o.shape)
    return linear(params["norm"] * normed + params["norm_bias"], params, "y", contracted=2)


def TTTLinear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    o = ttt_linear(mixed(inputs["x"], params, sizes["M"], 1.0), {}, {"m": sizes["M"]})["o"]
    return {"y": closed(o, params)}


def TTTLinear_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, M = 7, 2, 4, 3
    params = weights(rng, a=(C, H, D), b=(C, H, D), v=(C, H, D), lr=(C, H)) | weights(rng, 2, y=(H, D, C))
    params |= draws(rng, Ws=(H, D, D), bs=(H, D), gamma=(H, D), beta=(H, D), norm=(H, D), norm_bias=(H, D), learn=(M,))
    params["lr.bias"] = rng.standard_normal(H)
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "M": M}
