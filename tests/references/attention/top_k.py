"""Attention among channels: masks that keep the largest entries of a row; and relu in place of the softmax."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, softmax


def channel_map(q: Array, k: Array, tau: float) -> Array:
    """[d,f] from [t,d] and [t,f]: cosines over the pixels, times tau."""
    q, k = (x / np.sqrt((x * x).sum(axis=0) + 1e-12) for x in (q, k))
    return tau * q.T @ k


def top_k(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, tau, w = (inputs[name] for name in ("q", "k", "v", "tau", "w"))
    y = np.zeros(q.shape)
    for h in range(q.shape[1]):
        A = channel_map(q[:, h], k[:, h], tau[h])
        for weight, share in zip(w, (Fraction(1, 2), Fraction(2, 3), Fraction(3, 4), Fraction(4, 5)), strict=True):
            for d in range(len(A)):
                kept = np.argsort(-A[d], kind="stable")[: int(share * len(A))]
                if len(kept):
                    y[:, h, d] += weight * v[:, h][:, kept] @ softmax(A[d, kept])
    return {"y": y}


def top_k_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 7), k=(T, 2, 7), v=(T, 2, 7), tau=(2,), w=(4,)), {}, {}


def sparse_global(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, tau = (inputs[name] for name in ("q", "k", "v", "tau"))
    y = np.zeros(q.shape)
    for h in range(q.shape[1]):
        y[:, h] = v[:, h] @ np.maximum(channel_map(q[:, h], k[:, h], tau[h]), 0).T
    return {"y": y}


def sparse_global_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 5), k=(T, 2, 5), v=(T, 2, 5), tau=(2,)), {}, {}
