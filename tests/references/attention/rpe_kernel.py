"""Kernelised attention with a factor for each distance, pair by pair."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, l2_norm


def averaged(q: Array, k: Array, v: Array, b: Array, *, causal: bool = False) -> Array:
    """b[h, s - t + T - 1] is the logarithm of the factor; where causal, b[h, t - s]."""
    T = len(q)
    y = np.zeros((T, q.shape[1], v.shape[2]))
    for t in range(T):
        for h in range(q.shape[1]):
            keys = range(t + 1) if causal else range(T)
            factor = [np.exp(b[h, t - s if causal else s - t + T - 1]) for s in keys]
            weight = np.array([f * (q[t, h] @ k[s, h]) for f, s in zip(factor, keys, strict=True)])
            y[t, h] = weight @ v[keys, h] / weight.sum()
    return y


def rpe_dense(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": averaged(*(inputs[name] for name in ("q", "k", "v", "b")))}


def rpe_dense_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), b=(3, 2 * T - 1))
    return inputs | {name: np.exp(inputs[name]) for name in ("q", "k")}, {}, {}


rpe_fft = rpe_dense
rpe_fft_example = rpe_dense_example


def nprf(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    w = inputs["w"]
    fq, fk = (np.exp(l2_norm(inputs[n]) @ w.T - 0.5) / np.sqrt(len(w)) for n in ("q", "k"))   # |x|^2 / 2 is 1 / 2
    return {"y": averaged(fq, fk, inputs["v"], inputs["b"])}


def nprf_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), w=(6, 5), b=(3, 2 * T - 1)), {}, {}


def rpe_causal(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": averaged(*(inputs[name] for name in ("q", "k", "v", "b")), causal=True)}


def rpe_causal_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), b=(3, T))
    return inputs | {name: np.exp(inputs[name]) for name in ("q", "k")}, {}, {}
