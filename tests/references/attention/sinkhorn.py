"""Sinkhorn's iteration on a score matrix, in the plain domain, and attention with the result."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, weights


def half_steps(a: Array, count: int) -> Array:
    """Rows are normalised first, then columns, and so on."""
    P = np.exp(a)
    for i in range(count):
        P = P / P.sum(axis=1 - i % 2, keepdims=True)
    return P


def sinkhorn_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for h in range(q.shape[1]):
        o[:, h] = half_steps(q[:, h] @ k[:, h].T / np.sqrt(q.shape[2]), sizes["N"]) @ v[:, h]
    return {"o": o}


def sinkhorn_attention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)), {}, {"N": 4}


def sinkhorn(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"p": half_steps(inputs["a"].T, 2 * sizes["N"]).T}


def sinkhorn_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, a=(T, T)), {}, {"N": 3}


def Sinkformer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    return {"y": linear(sinkhorn_attention(mixed, {}, sizes)["o"], params, "y", contracted=2)}


def Sinkformer_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 4
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "N": 5}
