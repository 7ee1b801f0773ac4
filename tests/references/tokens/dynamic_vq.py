"""DynamicVQ: nearest entries of a codebook, at one of two resolutions, chosen cell by cell."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws


def quantise(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    away = ((inputs["x"][:, :, None] - inputs["book"]) ** 2).sum(axis=-1)
    code = away.argmin(axis=-1)
    return {"y": inputs["book"][code], "code": code * 1.0}


def quantise_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 3, 4), book=(6, 4)), {}, {}


def DynamicVQ(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    coarse, fine, w = inputs["coarse"], inputs["fine"], params["w"]
    rows, columns, width = coarse.shape
    pooled = fine.reshape(rows, 2, columns, 2, width).mean(axis=(1, 3))
    route = (coarse @ w[:, 0].T + pooled @ w[:, 1].T).argmax(axis=-1)
    book = {"book": inputs["book"]}
    low, y = quantise({"x": coarse, **book}, {}, {})["y"], quantise({"x": fine, **book}, {}, {})["y"]
    for i, j in np.argwhere(route == 0):
        y[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = low[i, j]
    return {"y": y, "route": route * 1.0}


def DynamicVQ_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, coarse=(T, 3, 4), fine=(2 * T, 6, 4), book=(6, 4)), draws(rng, w=(2, 2, 4)), {}
