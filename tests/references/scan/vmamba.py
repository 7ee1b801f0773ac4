"""Selective scans along four ways of an image, each a loop over a list of places."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, layer_norm, linear, silu, softplus, weights
from .vision_mamba import one_way


def cross_scan(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    y = np.zeros_like(x)
    rows, columns, _ = x.shape
    by_rows = [(i, j) for i in range(rows) for j in range(columns)]
    by_columns = [(i, j) for j in range(columns) for i in range(rows)]
    for o, way in enumerate((by_rows, by_columns)):
        for r, path in enumerate((way, way[::-1])):
            tokens = {name: np.stack([inputs[name][o, r][place] for place in path]) for name in ("dt", "B", "C")}
            tokens["x"] = np.stack([x[place] for place in path])
            for place, value in zip(path, one_way(tokens, inputs["A"][o, r], inputs["skip"][o, r]), strict=True):
                y[place] += value
    return {"y": y}


def cross_scan_example(rng: np.random.Generator, T: int) -> Example:
    J, d, n = 3, 2, 3
    inputs = draws(rng, x=(T, J, d), dt=(2, 2, T, J, d), A=(2, 2, d, n), B=(2, 2, T, J, n), C=(2, 2, T, J, n))
    inputs |= {"dt": softplus(inputs["dt"]), "A": -np.exp(0.3 * inputs["A"])}
    return inputs | draws(rng, skip=(2, 2, d)), {}, {}


def SS2D(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u = inputs["u"]
    rows, columns, _ = u.shape
    padded = np.pad(linear(u, params, "xin"), [(1, 1), (1, 1), (0, 0)])
    taps = [params["w"][a, b] * padded[a : a + rows, b : b + columns] for a in range(3) for b in range(3)]
    x = silu(params["bias"] + sum(taps))
    each = {"B": np.einsum("ijd,ordn->orijn", x, params["wB"]), "C": np.einsum("ijd,ordn->orijn", x, params["wC"])}
    rate = np.einsum("ijd,ordk,orke->orije", x, params["wlow"], params["wdt"])
    each["dt"] = softplus(rate + params["dt_bias"][:, :, None, None])
    y = cross_scan(each | {"x": x, "A": -np.exp(params["A_log"]), "skip": params["skip"]}, {}, {})["y"]
    return {"out": linear(layer_norm(y) * silu(linear(u, params, "z")), params, "out")}


def SS2D_example(rng: np.random.Generator, T: int) -> Example:
    C, N, D, R = 4, 2, 3, 2
    params = weights(rng, xin=(C, D), z=(C, D), out=(D, C)) | draws(rng, w=(3, 3, D), bias=(D,), A_log=(2, 2, D, N))
    params |= draws(rng, wlow=(2, 2, D, R), wB=(2, 2, D, N), wC=(2, 2, D, N), wdt=(2, 2, R, D))
    params |= draws(rng, dt_bias=(2, 2, D), skip=(2, 2, D))
    return draws(rng, u=(T, 2, C)), params, {"N": N, "D": D, "R": R}
