"""Linear attention with one decay for each head and token."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, log_sigmoid


def simple_gla(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, a = (inputs[name] for name in ("q", "k", "v", "a"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((D, v.shape[2]))
        for t in range(T):
            state = np.exp(a[t, h]) * state + np.outer(k[t, h], v[t, h])
            o[t, h] = state.T @ (q[t, h] * D**-0.5)
    return {"o": o}


def simple_gla_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4))
    inputs["a"] = log_sigmoid(rng.standard_normal((T, 3)) + 1)
    return inputs, {}, {}


def simple_gla_quadratic(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The mask is the product of the decays after s, up to t."""
    q, k, v, a = (inputs[name] for name in ("q", "k", "v", "a"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for t in range(T):
        for s in range(t + 1):
            for h in range(H):
                mask = np.prod(np.exp(a[s + 1 : t + 1, h]))
                o[t, h] += mask * (q[t, h] @ k[s, h]) * D**-0.5 * v[s, h]
    return {"o": o}


simple_gla_quadratic_example = simple_gla_example


def simple_gla_gva(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """Key head g serves the |h| / |g| value heads of its group."""
    repeat = inputs["v"].shape[1] // inputs["q"].shape[1]
    q, k = (np.repeat(inputs[name], repeat, axis=1) for name in ("q", "k"))
    return simple_gla(inputs | {"q": q, "k": k}, {}, {})


def simple_gla_gva_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 2, 5), k=(T, 2, 5), v=(T, 6, 3))
    inputs["a"] = log_sigmoid(rng.standard_normal((T, 6)) + 1)
    return inputs, {}, {}
