"""Softmax attention to projected keys and values."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, weights
from .softmax import attend


def linformer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, E, F = (inputs[name] for name in ("q", "k", "v", "E", "F"))
    km, vm = np.einsum("ms,shd->mhd", E, k), np.einsum("ms,she->mhe", F, v)
    return {"o": attend(q, km, vm, np.ones((len(q), len(km))))}


def linformer_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T + 2, 3, 5), v=(T + 2, 3, 4), E=(4, T + 2), F=(4, T + 2)), {}, {}


def Linformer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    mixed |= {"E": params["E"], "F": params["E"]}
    return {"y": linear(linformer(mixed, {}, {})["o"], params, "y", contracted=2)}


def Linformer_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, M = 7, 3, 4, 3
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C)) | draws(rng, E=(M, T))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "M": M}
