"""HorNet's recursive gated convolution, pixel by pixel, and the filter that is half local, half global."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, complex_draw, draws, layer_norm, linear, weights
from .global_filter import global_filter


def depthwise(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, w = inputs["x"], inputs["w"]
    y, (rows, columns) = np.zeros_like(x), x.shape[:2]
    for i in range(rows):
        for j in range(columns):
            for a in range(w.shape[0]):
                for b in range(w.shape[1]):
                    at = i + a - w.shape[0] // 2, j + b - w.shape[1] // 2
                    if 0 <= at[0] < rows and 0 <= at[1] < columns:
                        y[i, j] += w[a, b] * x[at]
    return {"y": y}


def depthwise_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 3, 2), w=(3, 5, 2)), {}, {}


def _near(x: Array, w: Array) -> Array:
    return depthwise({"x": x, "w": w}, {}, {})["y"]


def gn_conv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, n = inputs["x"], sizes["n"]
    widths = [x.shape[2] // 2 ** (n - 1 - k) for k in range(n)]
    gates = (_near(linear(x, params, "q"), params["kernel"]) + params["offset"]) / 3
    gates = np.split(gates, np.cumsum(widths)[:-1], axis=2)
    p = linear(x, params, "p") * gates[0]
    for k in range(1, n):
        p = linear(p, params, f"p{k}") * gates[k]
    return {"y": linear(p, params, "y")}


def gn_conv_example(rng: np.random.Generator, T: int) -> Example:
    C, n, w = 8, 3, 3
    params = weights(rng, p=(C, 2), q=(C, 14), p1=(2, 4), p2=(4, 8), y=(8, 8))
    params |= draws(rng, **{"p.bias": (2,), "q.bias": (14,), "p1.bias": (4,), "p2.bias": (8,), "y.bias": (8,)})
    return draws(rng, x=(T, 3, C)), params | draws(rng, kernel=(w, w, 14), offset=(14,)), {"n": n, "w": w}


def GlobalLocalFilter(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    (first, second), (low, high) = params["scale"], params["shift"]
    z = first * layer_norm(inputs["x"]) + low
    half = z.shape[2] // 2
    both = np.zeros_like(z)
    both[:, :, 0::2] = _near(z[:, :, :half], params["kernel"])
    both[:, :, 1::2] = global_filter({"x": z[:, :, half:], "K": params["K"]}, {}, {})["y"]
    return {"y": second * layer_norm(both) + high}


def GlobalLocalFilter_example(rng: np.random.Generator, T: int) -> Example:
    columns, C, w = 3, 4, 3
    params = draws(rng, kernel=(w, w, C // 2), scale=(2, C), shift=(2, C))
    return draws(rng, x=(T, columns, C)), params | {"K": complex_draw(rng, T, columns // 2 + 1, C // 2)}, {"w": w}
