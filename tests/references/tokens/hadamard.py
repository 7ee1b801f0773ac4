"""The Walsh-Hadamard matrix by Sylvester's doubling; and the adapter as one weight matrix."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws


def sylvester(n: int) -> Array:
    H = np.ones((1, 1))
    while len(H) < n:
        H = np.block([[H, H], [H, -H]])
    return H


def walsh(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    return {"y": x @ sylvester(x.shape[1]) / np.sqrt(x.shape[1])}


def walsh_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 8)), {}, {}


def walsh_twice(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": inputs["x"]}


walsh_twice_example = walsh_example


def walsh_adapter(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, W, F, mask, alpha = (inputs[name] for name in ("x", "W", "F", "mask", "alpha"))
    n, out = W.shape
    return {"y": x @ (W + alpha * sylvester(n) @ (F * mask) / (n * np.sqrt(out)))}


def walsh_adapter_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, x=(T, 4), W=(4, 3), F=(4, 3))
    return inputs | {"mask": rng.random((4, 3)) < 0.5, "alpha": np.array(0.8)}, {}, {}
