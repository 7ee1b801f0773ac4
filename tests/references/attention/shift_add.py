"""Attention with binarised queries and keys, pair by pair; linear maps with powers of two."""

from __future__ import annotations

import math

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, l2_norm, linear, weights


def binarised(x: Array) -> Array:
    normed = l2_norm(x)
    return np.abs(normed).mean() * (normed > 0)


def shift_add(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = binarised(inputs["q"]), binarised(inputs["k"]), inputs["v"]
    z = np.zeros(v.shape)
    for t in range(len(v)):
        for h in range(v.shape[1]):
            for s in range(len(v)):
                z[t, h] += ((0.5 if s == t else 0) + q[t, h] @ k[s, h] / math.pi) * v[s, h]
    return {"z": z}


def shift_add_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)), {}, {}


shift_add_quadratic = shift_add
shift_add_quadratic_example = shift_add_example


def ShiftAdd(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    z, v = l2_norm(shift_add(mixed, {}, {})["z"]), mixed["v"]
    for t in range(len(v)):
        for j in range(sizes["W"]):
            if 0 <= t + j - sizes["W"] // 2 < len(v):
                z[t] += params["w"][j][:, None] * v[t + j - sizes["W"] // 2]
    return {"y": linear(z, params, "y", contracted=2)}


def ShiftAdd_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, W = 7, 3, 4, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C)) | draws(rng, w=(W, H))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "W": W}


def ShiftLinear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    fixed = np.floor(inputs["x"] * 2**16) / 2**16
    powers = 2.0 ** np.round(np.clip(params["power"], -14, 0))
    return {"y": fixed @ (np.sign(np.round(params["sgn"])) * powers)}


def ShiftLinear_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 6, 4
    params = {"sgn": rng.uniform(-1, 1, (C, N)), "power": rng.uniform(-16, 1, (C, N))}
    return draws(rng, x=(T, C)), params, {"N": N}
