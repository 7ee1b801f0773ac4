"""Memories over the features of exp(q . k): sums over all pairs of tokens, and gradient steps on their weights."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws


def deep_transformer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in "qkv")
    decay = np.exp(inputs["a"]) if "a" in inputs else np.ones(q.shape[:2])
    o = np.zeros_like(v)
    for t in range(len(q)):
        for s in range(t + 1):
            weight = decay[s + 1 : t + 1].prod(axis=0) * np.exp((q[t] * k[s]).sum(axis=-1))
            o[t] += weight[:, None] * v[s]
    return {"o": o}


def unnormalised_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 4), k=(T, 3, 4), v=(T, 3, 2)), {}, {}


def deep_transformer_example(rng: np.random.Generator, T: int) -> Example:
    return unnormalised_example(rng, T)[0] | {"a": -rng.uniform(0, 1, (T, 3))}, {}, {}


unnormalised = deep_transformer


def dot(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The memory is the function x -> sum of w[s] exp(k[s] . x); what it misses at a key is added to that key's weight."""
    q, k, v, alpha, eta, theta = (inputs[name] for name in ("q", "k", "v", "alpha", "eta", "theta"))
    o = np.zeros_like(v)
    for h in range(q.shape[1]):
        kernel = np.exp(k[:, h] @ k[:, h].T)
        weight, momentum = np.zeros_like(v[:, h]), np.zeros_like(v[:, h])
        for t in range(len(q)):
            answers = kernel @ weight
            momentum = theta[t, h] * momentum
            for s in range(max(t - sizes["W"] + 1, 0), t + 1):
                momentum[s] += 2 * (answers[s] - v[s, h])
            weight = alpha[t, h] * weight - eta[t, h] * momentum
            o[t, h] = np.exp(k[:, h] @ q[t, h]) @ weight
    return {"o": o}


def dot_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 2, 3), k=(T, 2, 3), v=(T, 2, 2))
    inputs |= {"k": 0.5 * inputs["k"], "alpha": rng.uniform(0.6, 1, (T, 2))}
    return inputs | {name: rng.uniform(0, 0.1, (T, 2)) for name in ("eta", "theta")}, {}, {"W": 3}
