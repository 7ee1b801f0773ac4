"""Attention with rotated queries and keys."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, weights
from .positions import rope, rope_half
from .positions_in_space import rope_2d
from .softmax import attend


def rope_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k = (np.array([[rope(x, t) for x in heads] for t, heads in enumerate(inputs[name])]) for name in ("q", "k"))
    return {"o": attend(q, k, inputs["v"], np.tri(len(q)))}


def rope_attention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 6), k=(T, 3, 6), v=(T, 3, 4)), {}, {}


rope_attention_distance = rope_attention
rope_attention_distance_example = rope_attention_example


def rope_attention_2d(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    rows, columns = inputs["q"].shape[:2]
    cells = [(i, j) for i in range(rows) for j in range(columns)]
    q, k = (np.array([[rope_2d(x, *cell) for x in inputs[name][cell]] for cell in cells]) for name in ("q", "k"))
    x = np.array([inputs["x"][cell] for cell in cells])
    o = attend(q, k, x, np.ones((len(cells), len(cells))))
    return {"o": o.reshape(rows, columns, *o.shape[1:])}


def rope_attention_2d_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 2, 8), k=(T, 3, 2, 8), x=(T, 3, 2, 3)), {}, {}


def Rope(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (linear(inputs["x"], params, name) for name in ("q", "k", "v"))
    q, k = (np.array([[rope_half(x, t) for x in heads] for t, heads in enumerate(z)]) for z in (q, k))
    return {"y": linear(attend(q, k, v, np.tri(len(q))), params, "y", contracted=2)}


def Rope_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 4
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}
