"""The dynamic range activator, entry by entry, and a feed-forward layer with it."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, weights


def activated(x: Array, a: Array, b: Array, d: Array, s: Array) -> Array:
    return x + a * (1 - np.cos(2 * x / b)) / 2 + s * np.cos(b * x) + d * np.tanh(b * x)


def range_activator(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": activated(*(inputs[name] for name in "xabds"))}


def range_activator_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4), a=(4,), d=(4,), s=(4,)) | {"b": rng.uniform(0.5, 2, 4)}, {}, {}


def RangeFFN(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    h = activated(linear(inputs["x"], params, "z"), *(params[name] for name in "abds"))
    return {"y": linear(h, params, "y")}


def RangeFFN_example(rng: np.random.Generator, T: int) -> Example:
    C, M = 4, 5
    params = weights(rng, z=(C, M), y=(M, C)) | draws(rng, a=(M,), d=(M,), s=(M,), **{"z.bias": (M,), "y.bias": (C,)})
    return draws(rng, x=(T, C)), params | {"b": rng.uniform(0.5, 2, M)}, {"M": M}
