"""Nystrom attention, one head at a time: three softmax maps and an iterated inverse."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, softmax, weights


def landmarks(x: Array, count: int) -> Array:
    """Means of consecutive rows; a landmark without rows is 0."""
    groups = [[n for n in range(len(x)) if n * count // len(x) == m] for m in range(count)]
    return np.array([x[rows].mean(axis=0) if rows else np.zeros(x.shape[1]) for rows in groups])


def inverse(A: Array, steps: int) -> Array:
    Z, one = A.T / (A.sum(axis=1).max() * A.sum(axis=0).max()), np.eye(len(A))
    for _ in range(steps):
        AZ = A @ Z
        Z = Z @ (13 * one - AZ @ (15 * one - AZ @ (7 * one - AZ))) / 4
    return Z


def nystrom(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for h in range(q.shape[1]):
        x, y = q[:, h] / np.sqrt(q.shape[2]), k[:, h]
        xl, yl = landmarks(x, sizes["L"]), landmarks(y, sizes["L"])
        left, middle, right = softmax(x @ yl.T), softmax(xl @ yl.T), softmax(xl @ y.T)
        o[:, h] = left @ inverse(middle, sizes["N"]) @ (right @ v[:, h])
    return {"o": o}


def nystrom_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T + 2, 3, 5), v=(T + 2, 3, 4)), {}, {"L": 3, "N": 4}


def Nystrom(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    o, v = nystrom(mixed, {}, sizes)["o"], mixed["v"]
    for t in range(len(v)):
        for j in range(sizes["W"]):
            if 0 <= t + j - sizes["W"] // 2 < len(v):
                o[t] += params["w"][j][:, None] * v[t + j - sizes["W"] // 2]
    return {"y": linear(o, params, "y", contracted=2)}


def Nystrom_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, W = 7, 3, 4, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C)) | draws(rng, w=(W, H))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "L": 2, "N": 3, "W": W}
