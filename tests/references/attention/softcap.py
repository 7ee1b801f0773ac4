"""Attention with bent scores, and with normalised queries and keys."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, l2_norm, linear, weights
from .softmax import pool


def softcap(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, cap = (inputs[name] for name in ("q", "k", "v", "cap"))
    score = np.einsum("thd,shd->tsh", q, k) / np.sqrt(q.shape[2])
    return {"o": pool(cap * np.tanh(score / cap), v, np.tri(len(q)))}


def softcap_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)) | {"cap": np.array([0.5, 1.5, 4.0])}, {}, {}


def qk_norm(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k = l2_norm(inputs["q"]), l2_norm(inputs["k"])
    score = np.einsum("thd,shd,h->tsh", q, k, inputs["scale"])
    return {"o": pool(score, inputs["v"], np.tri(len(q)))}


def qk_norm_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), scale=(3,)), {}, {}


def Softcap(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    o = softcap(mixed | {"cap": np.full(sizes["H"], float(sizes["cap"]))}, {}, {})["o"]
    return {"y": linear(o, params, "y", contracted=2)}


def Softcap_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "cap": 2}
