"""Attention by agreement of hash codes, pair by pair."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, l2_norm


def agreement(code: Array, v: Array) -> Array:
    """Weights: how many bits agree, less how many differ, plus one more than there are."""
    y = np.zeros(v.shape)
    for t in range(len(v)):
        for h in range(v.shape[1]):
            weight = np.array([code[t, h] @ code[s, h] + code.shape[2] + 1 for s in range(len(v))])
            y[t, h] = weight @ v[:, h] / weight.sum()
    return y


def binary_hash(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z, v, anchor, A, mu = (inputs[name] for name in ("z", "v", "anchor", "A", "mu"))
    code = np.zeros((*z.shape[:2], A.shape[1]))
    for h in range(z.shape[1]):
        far = ((l2_norm(z[:, h])[:, None] - anchor[h]) ** 2).sum(axis=-1)
        kernel = np.exp(-far / (2 * far.mean()))
        code[:, h] = np.sign((kernel - mu[h]) @ A[h].T)
    return {"y": agreement(code, v)}


def binary_hash_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, z=(T, 2, 5), v=(T, 2, 3), anchor=(2, 4, 5), A=(2, 6, 4), mu=(2, 4)), {}, {}


def hamming_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": agreement(inputs["code"], inputs["v"])}


def hamming_attention_example(rng: np.random.Generator, T: int) -> Example:
    return {"code": rng.choice([-1.0, 1.0], (T, 2, 6)), "v": rng.standard_normal((T, 2, 3))}, {}, {}


hamming_attention_quadratic = hamming_attention
hamming_attention_quadratic_example = hamming_attention_example
