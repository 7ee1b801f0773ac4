"""Softmax attention with a bias and a factor for each distance."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, softmax, weights
from .positions import t5_bucket


def with_factor(q: Array, k: Array, v: Array, bias: Array, factor: Array, visible: Array) -> Array:
    """Scores plus bias, a softmax over the visible keys, times factor; bias and factor [t,s,h]."""
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for t in range(len(q)):
        seen = np.flatnonzero(visible[t])
        for h in range(q.shape[1]):
            p = softmax(k[seen, h] @ q[t, h] / np.sqrt(q.shape[2]) + bias[t, seen, h])
            o[t, h] = (p * factor[t, seen, h]) @ v[seen, h]
    return o


def table(b: Array, T: int, start: int, sign: int) -> Array:
    """[t,s,h] from [h,u]: the entry of each distance; 0 outside."""
    found = np.zeros((T, T, len(b)))
    for t in range(T):
        for s in range(T):
            if 0 <= start + sign * (s - t) < b.shape[1]:
                found[t, s] = b[:, start + sign * (s - t)]
    return found


def urpe(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, b, c = (inputs[name] for name in ("q", "k", "v", "b", "c"))
    T = len(q)
    return {"o": with_factor(q, k, v, table(b, T, T - 1, 1), table(c, T, T - 1, 1), np.ones((T, T)))}


def urpe_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), b=(3, 2 * T - 1), c=(3, 2 * T - 1)), {}, {}


def relative(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return urpe(inputs | {"c": np.ones_like(inputs["b"])}, {}, {})


def relative_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), b=(3, 2 * T - 1)), {}, {}


def urpe_causal(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, b, c = (inputs[name] for name in ("q", "k", "v", "b", "c"))
    T = len(q)
    return {"o": with_factor(q, k, v, table(b, T, 0, -1), table(c, T, 0, -1), np.tri(T))}


def urpe_causal_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), b=(3, T), c=(3, T)), {}, {}


def URPE(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (linear(inputs["x"], params, name) for name in ("q", "k", "v"))
    T = len(q)
    bucket = np.array([[t5_bucket(s - t, sizes["B"], sizes["R"]) for s in range(T)] for t in range(T)])
    bias, factor = (params[name][:, bucket].transpose(1, 2, 0) for name in ("bias", "scale"))
    return {"y": linear(with_factor(q, k, v, bias, factor, np.ones((T, T))), params, "y", contracted=2)}


def URPE_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, B = 7, 3, 4, 12
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params | draws(rng, bias=(H, B), scale=(H, B)), {"H": H, "D": D, "B": B, "R": 17}
