"""Softmax attention: causal, and over all tokens of a second sequence; the layers."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, softmax, weights


def attend(q: Array, k: Array, v: Array, visible: Array) -> Array:
    """One softmax for each query and head, over the keys that are visible to it; [t,h,d], [s,h,d], [s,h,e], [t,s]."""
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for t in range(q.shape[0]):
        seen = np.flatnonzero(visible[t])
        for h in range(q.shape[1]):
            score = np.array([q[t, h] @ k[s, h] for s in seen]) * q.shape[2] ** -0.5
            o[t, h] = softmax(score) @ v[seen, h]
    return o


def pool(score: Array, v: Array, visible: Array) -> Array:
    """The same from scores that are given; [t,s,h], [s,h,e], [t,s]. Nothing where nothing is visible."""
    o = np.zeros((score.shape[0], *v.shape[1:]))
    for t in range(score.shape[0]):
        seen = np.flatnonzero(visible[t])
        for h in range(v.shape[1]):
            if len(seen):
                o[t, h] = softmax(score[t, seen, h]) @ v[seen, h]
    return o


def attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    return {"o": attend(q, k, v, np.tri(len(q)))}


def attention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)), {}, {}


def attention_full(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    return {"o": attend(q, k, v, np.ones((len(q), len(k))))}


def attention_full_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T + 2, 3, 5), v=(T + 2, 3, 4)), {}, {}


def MultiHeadAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    mixed = {name: linear(x, params, name) for name in ("q", "k", "v")}
    return {"y": linear(attention(mixed, {}, {})["o"], params, "y", contracted=2)}


def MultiHeadAttention_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}


def CrossAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {"q": linear(inputs["x"], params, "q")}
    mixed |= {name: linear(inputs["z"], params, name) for name in ("k", "v")}
    return {"y": linear(attention_full(mixed, {}, {})["o"], params, "y", contracted=2)}


def CrossAttention_example(rng: np.random.Generator, T: int) -> Example:
    C, B, H, D = 7, 4, 3, 5
    params = weights(rng, q=(C, H, D), k=(B, H, D), v=(B, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C), z=(T + 2, B)), params, {"H": H, "D": D}
