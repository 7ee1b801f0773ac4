"""Bilinear upsampling, NeRV++'s separable block, and a trilinear read of a hashed grid."""

from __future__ import annotations

import math

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, linear, weights
from .gn_conv import depthwise


def read(x: Array, i: float, j: float) -> Array:
    """Between four pixels; nothing outside."""
    total = np.zeros(x.shape[2])
    for a in (math.floor(i), math.floor(i) + 1):
        for b in (math.floor(j), math.floor(j) + 1):
            if 0 <= a < x.shape[0] and 0 <= b < x.shape[1]:
                total += max(0.0, 1 - abs(i - a)) * max(0.0, 1 - abs(j - b)) * x[a, b]
    return total


def _upsampled(x: Array, S: int) -> Array:
    rows, columns, C = x.shape
    y = np.zeros((S * rows, S * columns, C))
    for u in range(S * rows):
        for v in range(S * columns):
            i, j = min(max((u + 0.5) / S - 0.5, 0), rows - 1), min(max((v + 0.5) / S - 0.5, 0), columns - 1)
            y[u, v] = read(x, i, j)
    return y


def bilinear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": _upsampled(inputs["x"], sizes["S"])}


def bilinear_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4, 3)), {}, {"S": 3}


def SeparableBlock(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, S = inputs["x"], sizes["S"]
    z = depthwise({"x": x, "w": params["near"]}, {}, {})["y"]
    y = linear(_upsampled(x, S), params, "skip")
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            block = np.tensordot(z[i, j], params["up.weight"], axes=1) + params["up.bias"]
            y[S * i : S * i + S, S * j : S * j + S] += gelu(block)
    return {"y": y}


def SeparableBlock_example(rng: np.random.Generator, T: int) -> Example:
    C, S, F, w = 3, 2, 4, 3
    params = weights(rng, up=(C, S, S, F), skip=(C, F)) | draws(rng, near=(w, w, C), **{"up.bias": (S, S, F)})
    return draws(rng, x=(T, 3, C)), params, {"S": S, "F": F, "w": w}


def hash_grid(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    pos, res, table = inputs["pos"], inputs["res"], inputs["table"]
    levels, rows, C = table.shape
    y = np.zeros((len(pos), levels, C))
    for t in range(len(pos)):
        for l in range(levels):
            place = [float(res[l] * p) for p in pos[t]]
            for corner in np.ndindex(2, 2, 2):
                weight, hashed = 1.0, 0
                for at, side, prime in zip(place, corner, (1, 2654435761, 805459861), strict=True):
                    cell = math.floor(at) + side
                    weight *= 1 - abs(at - cell)
                    hashed ^= cell * prime
                y[t, l] += weight * table[l, hashed % rows]
    return {"y": y}


def hash_grid_example(rng: np.random.Generator, T: int) -> Example:
    return {"pos": rng.uniform(0, 1, (T, 3)), "res": np.array([2, 5, 11])} | draws(rng, table=(3, 16, 2)), {}, {}
