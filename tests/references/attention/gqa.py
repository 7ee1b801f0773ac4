"""Grouped-query and multi-query attention as attention with repeated key heads."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, weights
from .softmax import attend


def gqa(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    each = q.shape[1] // k.shape[1]
    return {"o": attend(q, np.repeat(k, each, axis=1), np.repeat(v, each, axis=1), np.tri(len(q)))}


def gqa_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 6, 5), k=(T, 2, 5), v=(T, 2, 4)), {}, {}


def mqa(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return gqa({"q": inputs["q"], "k": inputs["k"][:, None], "v": inputs["v"][:, None]}, {}, {})


def mqa_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 5), v=(T, 4)), {}, {}


def GQA(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    return {"y": linear(gqa(mixed, {}, {})["o"], params, "y", contracted=2)}


def GQA_example(rng: np.random.Generator, T: int) -> Example:
    C, H, G, D = 7, 4, 2, 3
    params = weights(rng, q=(C, H, D), k=(C, G, D), v=(C, G, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "G": G, "D": D}
