"""RWKV's average in both directions, pair by pair; images by lists of places."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws


def bi_wkv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    k, v, w, u = (inputs[name] for name in ("k", "v", "w", "u"))
    y = np.zeros_like(v)
    for t in range(len(k)):
        exponents = np.stack([u + k[t] if s == t else k[s] - w * (abs(t - s) - 1) for s in range(len(k))])
        weight = np.exp(exponents - exponents.max(axis=0))
        y[t] = (weight * v).sum(axis=0) / weight.sum(axis=0)
    return {"y": y}


def bi_wkv_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, k=(T, 4), v=(T, 4), u=(4,)) | {"w": rng.uniform(0.01, 1, 4)}, {}, {}


bi_wkv_sum, bi_wkv_sum_example = bi_wkv, bi_wkv_example

bi_wkv_flipped, bi_wkv_flipped_example = bi_wkv, bi_wkv_example


def re_wkv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    k, v = inputs["k"], inputs["v"]
    rows, columns, _ = k.shape
    by_rows = [(i, j) for i in range(rows) for j in range(columns)]
    by_columns = [(i, j) for j in range(columns) for i in range(rows)]
    for path, w, u in zip((by_rows, by_columns), inputs["w"], inputs["u"], strict=True):
        listed = {"k": np.stack([k[place] for place in path]), "v": np.stack([v[place] for place in path])}
        v = np.zeros_like(v)
        for place, value in zip(path, bi_wkv(listed | {"w": w, "u": u}, {}, {})["y"], strict=True):
            v[place] = value
    return {"y": v}


def re_wkv_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, k=(T, 3, 4), v=(T, 3, 4), u=(2, 4)) | {"w": rng.uniform(0.01, 1, (2, 4))}, {}, {}
