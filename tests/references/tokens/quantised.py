"""Quantisers entry by entry: logarithmic codes, affine codes by channel, and signs."""

from __future__ import annotations

import math

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, softmax


def adalog(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    p, s0, (q, r, b) = inputs["p"], float(inputs["s0"]), (sizes[name] for name in "qrb")
    y = np.zeros_like(p)
    for at, value in np.ndenumerate(p):
        code = round(-math.log2(max(value, 1e-15) / s0) * r / q)
        y[at] = 0 if code >= 2**b else s0 * 2 ** (-code * q / r)
    return {"y": y}


def probabilities(rng: np.random.Generator, T: int) -> Tensors:
    return {"p": softmax(2 * rng.standard_normal((T, 5))), "s0": np.array(0.9)}


def adalog_example(rng: np.random.Generator, T: int) -> Example:
    return probabilities(rng, T), {}, {"q": 30, "r": 37, "b": 3}


def log_sqrt2(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    p, s0 = inputs["p"], float(inputs["s0"])
    levels = np.array([s0 * math.sqrt(2) ** -code for code in range(2 ** sizes["b"])])
    y = np.zeros_like(p)
    for at, value in np.ndenumerate(p):
        code = round(-math.log(max(value, 1e-15) / s0, math.sqrt(2)))
        y[at] = levels[min(max(code, 0), len(levels) - 1)]
    return {"y": y}


def log_sqrt2_example(rng: np.random.Generator, T: int) -> Example:
    return probabilities(rng, T), {}, {"b": 3}


def channel_quantiser(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, s, z, W, bias = (inputs[name] for name in ("x", "s", "z", "W", "bias"))
    code = np.clip(np.floor(x / s + 0.5) + z, 0, 2 ** sizes["b"] - 1)
    return {"y": (s * (code - z)) @ W + bias}


layer_quantiser = channel_quantiser                    # the point of the paper


def channel_quantiser_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, x=(T, 4), W=(4, 3), bias=(3,))
    return inputs | {"s": rng.uniform(0.3, 1, 4), "z": rng.integers(0, 5, 4)}, {}, {"b": 3}


layer_quantiser_example = channel_quantiser_example


def elastic_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, n = inputs["q"], inputs["k"], inputs["v"], sizes["n"]
    aq, ak, ap, av = (inputs[name] for name in ("aq", "ak", "ap", "av"))
    o = np.zeros((*q.shape[:2], v.shape[-1]))
    for h in range(q.shape[1]):
        agreed = np.sign(q[:, h]) @ np.sign(k[:, h]).T * aq[h] * ak[h]
        kept = ap[h] * np.clip(np.rint(softmax(agreed / math.sqrt(q.shape[-1])) / ap[h]), 0, 1)
        o[:, h] = kept @ (av[h] * np.clip(np.rint(v[:, h] / av[h]), -n, n))
    return {"o": o}


def elastic_attention_example(rng: np.random.Generator, T: int) -> Example:
    scales = {name: rng.uniform(low, high, 2) for name, low, high in (("aq", 1, 2), ("ak", 1, 2), ("ap", 0.2, 0.5), ("av", 0.5, 1))}
    return draws(rng, q=(T, 2, 3), k=(4, 2, 3), v=(4, 2, 3)) | scales, {}, {"n": 1}
