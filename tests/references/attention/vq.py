"""Attention whose keys are codewords; and the gated layer with a damped average before it."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, sigmoid, silu, under, weights
from ..scan.ema import DampedEMA
from .softmax import attend, pool


def vq(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, code = (inputs[name] for name in ("q", "k", "v", "code"))
    quantised = np.zeros(k.shape)
    for t in range(len(k)):
        for h in range(k.shape[1]):
            distances = ((code[h] - k[t, h]) ** 2).sum(axis=1)
            quantised[t, h] = code[h, int(np.argmin(distances))]
    return {"o": attend(q, quantised, v, np.tri(len(q)))}


def vq_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 3), k=(T, 2, 3), v=(T, 2, 4), code=(2, 5, 3)), {}, {}


def vq_linear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    code, z = inputs["code"], inputs["z"]
    keys = np.array([[code[h, z[t, h]] for h in range(z.shape[1])] for t in range(len(z))])
    return {"o": attend(inputs["q"], keys, inputs["v"], np.tri(len(z)))}


def vq_linear_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 2, 3), v=(T, 2, 4), code=(2, 5, 3))
    return inputs | {"z": rng.integers(0, 5, (T, 2))}, {}, {}


def vq_block(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The keys near by are those given, with a bias; the others are codewords, without."""
    q, kq, v, code, z, b = (inputs[name] for name in ("q", "kq", "v", "code", "z", "b"))
    T, H, D = q.shape
    score = np.zeros((T, T, H))
    for t in range(T):
        for s in range(t + 1):
            near = s // sizes["L"] >= t // sizes["L"] - 1
            for h in range(H):
                key = kq[s, h] if near else code[h, z[s, h]]
                bias = b[h, t - s] if near and t - s < b.shape[1] else 0
                score[t, s, h] = q[t, h] @ key / np.sqrt(D) + bias
    return {"o": pool(score, v, np.tri(T))}


def vq_block_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 2, 3), kq=(T, 2, 3), v=(T, 2, 4), code=(2, 5, 3), b=(2, 6))
    return inputs | {"z": rng.integers(0, 5, (T, 2))}, {}, {"L": 4}


def vq_block_quadratic(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    code, z = inputs["code"], inputs["z"]
    keys = np.array([[code[h, z[t, h]] for h in range(z.shape[1])] for t in range(len(z))])
    return vq_block(inputs | {"kq": keys}, {}, sizes)


def vq_block_quadratic_example(rng: np.random.Generator, T: int) -> Example:
    inputs, params, sizes = vq_block_example(rng, T)
    return {name: value for name, value in inputs.items() if name != "kq"}, params, sizes


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
