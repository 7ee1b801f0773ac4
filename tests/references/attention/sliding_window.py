"""Attention to the last W tokens; and with tokens that are always visible and one more denominator."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws
from .softmax import attend


def sliding_window(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    visible = np.zeros((len(q), len(q)))
    for t in range(len(q)):
        visible[t, max(0, t - sizes["W"] + 1) : t + 1] = 1
    return {"o": attend(q, k, v, visible)}


def sliding_window_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)), {}, {"W": 3}


def sliding_window_sink(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, sink = (inputs[name] for name in ("q", "k", "v", "sink"))
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for t in range(len(q)):
        seen = [s for s in range(t + 1) if t - s < sizes["W"] or s < sizes["F"]]
        for h in range(q.shape[1]):
            weight = np.exp([q[t, h] @ k[s, h] * q.shape[2] ** -0.5 for s in seen])
            o[t, h] = weight @ v[seen, h] / (weight.sum() + np.exp(sink[h]))
    return {"o": o}


def sliding_window_sink_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), sink=(3,)), {}, {"W": 3, "F": 2}
