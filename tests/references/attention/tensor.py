"""Attention to pairs of tokens."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws


def triples(inputs: Tensors, weight_of: object, last: list[int]) -> Array:
    """Query t averages v1[s] v2[r] over all s, r before last[t]; the weights from the product of the features."""
    q, k1, k2, v1, v2 = (inputs[name] for name in ("q", "k1", "k2", "v1", "v2"))
    o = np.zeros((*q.shape[:2], v1.shape[2]))
    for t in range(len(q)):
        for h in range(q.shape[1]):
            total = 0.0
            for s in range(last[t]):
                for r in range(last[t]):
                    weight = weight_of((q[t, h] * k1[s, h] * k2[r, h]).sum(), q.shape[2])
                    o[t, h] += weight * v1[s, h] * v2[r, h]
                    total += weight
            o[t, h] /= total
    return o


def exponential(score: float, d: int) -> float:
    return float(np.exp(score / d))


def tensor_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": triples(inputs, exponential, [len(inputs["k1"])] * len(inputs["q"]))}


def tensor_attention_example(rng: np.random.Generator, T: int) -> Example:
    S = T + 2
    return draws(rng, q=(T, 2, 5), k1=(S, 2, 5), k2=(S, 2, 5), v1=(S, 2, 3), v2=(S, 2, 3)), {}, {}


tensor_pairs = tensor_attention
tensor_pairs_example = tensor_attention_example


def tensor_causal(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": triples(inputs, exponential, list(range(1, len(inputs["q"]) + 1)))}


def tensor_causal_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 5), k1=(T, 2, 5), k2=(T, 2, 5), v1=(T, 2, 3), v2=(T, 2, 3)), {}, {}


def tensor_linear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": triples(inputs, lambda score, d: score, list(range(1, len(inputs["q"]) + 1)))}


def tensor_linear_example(rng: np.random.Generator, T: int) -> Example:
    inputs, _, _ = tensor_causal_example(rng, T)
    return inputs | {name: np.exp(inputs[name]) for name in ("q", "k1", "k2")}, {}, {}


tensor_linear_dense = tensor_linear
tensor_linear_dense_example = tensor_linear_example
