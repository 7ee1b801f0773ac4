"""Squares of a product of Givens rotations, multiplied one by one."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, weights


def circuit_stochastic(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, theta = (inputs[name] for name in ("q", "k", "v", "theta"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        score = q[:, h] @ k[:, h].T / np.sqrt(D)
        U = np.eye(T)
        for n in range(T):   # in a round the pairs are disjoint, so that their order does not matter
            for i in range(T):
                for j in range(i + 1, T):
                    if (i + j) % T == n:
                        angle = theta[h] * (score[i, j] - score[j, i])
                        turn = np.eye(T)
                        turn[[i, j], [i, j]] = np.cos(angle)
                        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
                        U = turn @ U
        o[:, h] = U**2 @ v[:, h]
    return {"o": o}


def circuit_stochastic_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), theta=(3,)), {}, {}


def CircuitAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")} | {"theta": params["theta"]}
    return {"y": linear(circuit_stochastic(mixed, {}, {})["o"], params, "y", contracted=2)}


def CircuitAttention_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 4
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C)) | draws(rng, theta=(H,))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}
