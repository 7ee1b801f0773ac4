"""Titans' memory: momentum, weight decay and a gradient worked out by hand; per token, per chunk, and of two layers."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, gelu, l2_norm
from .ttt_mlp import gelu_slope


def titans_frozen(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The gradient of |k M - v|^2 is 2 k (k M - v), at the memory before the chunk."""
    q, k, v, alpha, eta, theta = (inputs[name] for name in ("q", "k", "v", "alpha", "eta", "theta"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        memory, momentum = np.zeros((D, v.shape[2])), np.zeros((D, v.shape[2]))
        for t in range(T):
            if t % sizes["m"] == 0:
                frozen = memory
            surprise = 2 * np.outer(k[t, h], k[t, h] @ frozen - v[t, h])
            momentum = eta[t, h] * momentum - theta[t, h] * surprise
            memory = (1 - alpha[t, h]) * memory + momentum
            o[t, h] = q[t, h] @ memory
    return {"o": o}


def titans(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return titans_frozen(inputs, params, {"m": 1})


def titans_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4))
    inputs |= {name: rng.uniform(0.05, 0.5, (T, 3)) for name in ("alpha", "eta", "theta")}
    return inputs | {"k": l2_norm(inputs["k"])}, {}, {}


def titans_frozen_example(rng: np.random.Generator, T: int) -> Example:
    return titans_example(rng, T)[0], {}, {"m": 3}


def titans_mlp(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, alpha, eta, theta = (inputs[name] for name in ("q", "k", "v", "alpha", "eta", "theta"))
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for h in range(q.shape[1]):
        A, B = params["A0"][h], params["B0"][h]
        SA, SB = np.zeros_like(A), np.zeros_like(B)
        for t in range(len(q)):
            y = k[t, h] @ A
            error = 2 * (gelu(y) @ B - v[t, h])
            SA = eta[t, h] * SA - theta[t, h] * np.outer(k[t, h], gelu_slope(y) * (B @ error))
            SB = eta[t, h] * SB - theta[t, h] * np.outer(gelu(y), error)
            A, B = (1 - alpha[t, h]) * A + SA, (1 - alpha[t, h]) * B + SB
            o[t, h] = gelu(q[t, h] @ A) @ B
    return {"o": o}


def titans_mlp_example(rng: np.random.Generator, T: int) -> Example:
    inputs = titans_example(rng, T)[0]
    inputs |= {name: inputs[name] / 10 for name in ("theta", "eta")}
    return inputs, {"A0": 0.3 * rng.standard_normal((3, 5, 6)), "B0": 0.3 * rng.standard_normal((3, 6, 4))}, {"F": 6}
