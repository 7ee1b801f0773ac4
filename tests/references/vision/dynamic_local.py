"""DLGSANet: a kernel for each pixel and group of channels; and channel attention with relu."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, l2_norm, linear, weights


def filtered(u: Array, g: Array, around: str) -> Array:
    """`around` is what np.pad puts outside."""
    groups, A, B = g.shape[2:]
    sides = ((A // 2, A), (B // 2, B), (0, 0))
    padded = np.pad(u, sides, mode="wrap") if around == "wrap" else np.pad(u, sides)
    o = np.zeros_like(u)
    for i in range(u.shape[0]):
        for j in range(u.shape[1]):
            for c in range(u.shape[2]):
                own = g[i, j, c // (u.shape[2] // groups)]
                o[i, j, c] = (own * padded[i : i + A, j : j + B, c]).sum()
    return o


def dynamic_local(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": filtered(inputs["u"], inputs["g"], "zeros")}


def dynamic_local_circular(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": filtered(inputs["u"], inputs["g"], "wrap")}


def dynamic_local_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, u=(T, 4, 6), g=(T, 4, 3, 3, 2)), {}, {}


dynamic_local_circular_example = dynamic_local_example


def DynamicLocal(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u = linear(inputs["x"], params, "u")
    low, K = linear(u, params, "low"), sizes["K"]
    padded = np.pad(low, ((K // 2, K // 2), (K // 2, K // 2), (0, 0)))
    mid = np.zeros_like(low)
    for i in range(low.shape[0]):
        for j in range(low.shape[1]):
            mid[i, j] = (params["near"] * padded[i : i + K, j : j + K]).sum(axis=(0, 1))
    return {"y": linear(filtered(u, linear(mid, params, "g"), "zeros"), params, "y")}


def DynamicLocal_example(rng: np.random.Generator, T: int) -> Example:
    C, G, R, K = 6, 2, 3, 3
    params = weights(rng, u=(C, C), low=(C, R), g=(R, G, K, K), y=(C, C)) | draws(rng, near=(K, K, R))
    return draws(rng, x=(T, 4, C)), params, {"G": G, "R": R, "K": K}


def sparse_global(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (np.moveaxis(inputs[name].reshape(-1, *inputs[name].shape[2:]), 0, -1) for name in "qkv")  # [h, d, pixel]
    o = np.zeros_like(q)
    for h in range(len(q)):
        o[h] = np.maximum(inputs["tau"][h] * l2_norm(q[h]) @ l2_norm(k[h]).T, 0) @ v[h]
    return {"o": np.moveaxis(o, -1, 0).reshape(inputs["q"].shape)}


def sparse_global_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 2, 4), k=(T, 3, 2, 4), v=(T, 3, 2, 4), tau=(2,)), {}, {}
