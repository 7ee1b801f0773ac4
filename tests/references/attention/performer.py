"""Attention with positive random features, as weighted averages over the visible values."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, weights


def favor(x: Array, w: Array) -> Array:
    """exp(w . x - |x|^2/2) / sqrt(m), the last axis of x scaled by its length^(-1/4)."""
    x = x * x.shape[-1] ** -0.25
    return np.exp(x @ w.T - 0.5 * (x**2).sum(axis=-1, keepdims=True)) / np.sqrt(len(w))


def averaged(fq: Array, fk: Array, v: Array, last: list[int]) -> Array:
    """Query t averages the values before last[t], weighted by the products of the features."""
    o = np.zeros((*fq.shape[:2], v.shape[2]))
    for t in range(len(fq)):
        for h in range(fq.shape[1]):
            weight = np.array([fq[t, h] @ fk[s, h] for s in range(last[t])])
            o[t, h] = weight @ v[: last[t], h] / weight.sum()
    return o


def performer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, w = (inputs[name] for name in ("q", "k", "v", "w"))
    return {"o": averaged(favor(q, w), favor(k, w), v, list(range(1, len(q) + 1)))}


def performer_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), w=(7, 5)), {}, {}


performer_quadratic = performer
performer_quadratic_example = performer_example


def performer_full(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, w = (inputs[name] for name in ("q", "k", "v", "w"))
    return {"o": averaged(favor(q, w), favor(k, w), v, [len(k)] * len(q))}


def performer_full_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T + 2, 3, 5), v=(T + 2, 3, 4), w=(7, 5)), {}, {}


performer_full_plain = performer_full
performer_full_plain_example = performer_full_example


def Performer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")} | {"w": params["w"]}
    return {"y": linear(performer(mixed, {}, {})["o"], params, "y", contracted=2)}


def Performer_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, M = 7, 3, 5, 8
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C)) | draws(rng, w=(M, D))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "M": M}
