"""TTT-MLP: the memory is a network of two layers, its gradients worked out by hand."""

from __future__ import annotations

import math

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, layer_norm
from .ttt_linear import miss_gradient


def gelu_slope(x: Array) -> Array:
    """The normal distribution function plus x times its density."""
    return gelu(x) / np.where(x == 0, 1, x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def ttt_mlp(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, lr, pos = (inputs[name] for name in ("q", "k", "v", "lr", "pos"))
    T, H, m = *q.shape[:2], sizes["m"]
    o = np.zeros_like(v)
    for h in range(H):
        gamma, beta = inputs["gamma"][h], inputs["beta"][h]
        state = [inputs[name][h] for name in ("Ws", "bs", "Vs", "cs")]
        for start in range(0, T, m):
            batch, entered = range(start, min(start + m, T)), state
            gradients = {}
            for j in batch:
                W, b, V, c = entered
                y = k[j, h] @ W + b
                out = miss_gradient(gelu(y) @ V + c, v[j, h] - k[j, h], gamma, beta)
                hidden = gelu_slope(y) * (V @ out)
                gradients[j] = [np.outer(k[j, h], hidden), hidden, np.outer(gelu(y), out), out]
            for t in batch:
                step = [sum(lr[j, h] * gradients[j][i] for j in range(start, t + 1)) for i in range(4)]
                state = [w - pos[t - start] * g for w, g in zip(entered, step, strict=True)]
                W, b, V, c = state
                o[t, h] = q[t, h] + gamma * layer_norm(gelu(q[t, h] @ W + b) @ V + c) + beta
    return {"o": o}


def ttt_mlp_example(rng: np.random.Generator, T: int) -> Example:
    H, D, F, m = 2, 4, 5, 3
    inputs = draws(rng, q=(T, H, D), k=(T, H, D), v=(T, H, D), gamma=(H, D), beta=(H, D))
    inputs |= draws(rng, Ws=(H, D, F), bs=(H, F), Vs=(H, F, D), cs=(H, D))
    return inputs | {"lr": rng.uniform(0.01, 0.1, (T, H)), "pos": 1 / np.arange(1, m + 1)}, {}, {"m": m}
