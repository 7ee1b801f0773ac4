"""LongVQ: the gated layer of quantised attention with a damped average before it."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, sigmoid, silu, under, weights
from ..scan.ema import DampedEMA
from .vq import vq


def LongVQ(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    u = DampedEMA({"x": x}, under(params, "u"), {"N": 16})["y"]
    Z, v = silu(linear(u, params, "Z"))[:, None], silu(linear(x, params, "v"))
    q, k = (params[f"g{name}"] * Z + params[f"b{name}"] for name in "qk")
    o = vq({"q": q, "k": k, "v": v, "code": params["code"]}, {}, {})["o"]
    asked = linear(silu(linear(u, params, "r")) * o, {"f.weight": params["f_2.weight"]}, "f", contracted=2)
    f, g = silu(linear(u, params, "f") + asked), sigmoid(linear(u, params, "g"))
    return {"y": g * f + (1 - g) * x}


def LongVQ_example(rng: np.random.Generator, T: int) -> Example:
    C, D, E, M, N = 4, 3, 5, 6, 16
    params = weights(rng, Z=(C, D), v=(C, 1, E), r=(C, 1, E), f=(C, C), g=(C, C))
    params |= {"f_2.weight": rng.standard_normal((1, E, C)) / np.sqrt(E)}
    params |= draws(rng, code=(1, M, D), gq=(D,), bq=(D,), gk=(D,), bk=(D,))
    average = draws(rng, alpha=(C, N), delta=(C, N), beta=(C, N), gamma=(C, N), omega=(C,))
    return draws(rng, x=(T, C)), params | {f"u.{n}": value for n, value in average.items()}, {"D": D, "E": E, "M": M}
