"""Squares of the orthogonal factor of the scores, by Gram-Schmidt."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, weights


def orthonormal(A: Array) -> Array:
    """The columns of A, one after another, made orthogonal to those before (twice, for accuracy) and of length one."""
    U = np.zeros(A.shape)
    for j in range(A.shape[1]):
        column = A[:, j]
        for _ in range(2):
            column = column - U[:, :j] @ (U[:, :j].T @ column)
        U[:, j] = column / np.sqrt(column @ column)
    return U


def qr_stochastic(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for h in range(q.shape[1]):
        scores = q[:, h] @ k[:, h].T / np.sqrt(q.shape[2]) + np.eye(len(q))
        o[:, h] = orthonormal(scores) ** 2 @ v[:, h]
    return {"o": o}


def qr_stochastic_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)), {}, {}


def QRAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    return {"y": linear(qr_stochastic(mixed, {}, {})["o"], params, "y", contracted=2)}


def QRAttention_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 4
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}
