"""MemoryFormer: signs as addresses, a table read for each, weighted by a score."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, sigmoid, weights


def read(z: Array, table: Array) -> Array:
    y = np.zeros((len(z), table.shape[-1]))
    for t in range(len(z)):
        for k, own in enumerate(z[t]):
            address = int("".join("1" if value >= 0 else "0" for value in own), 2)
            y[t] += np.abs(own).sum() * sigmoid(2 * np.abs(own)).prod() * table[k, address]
    return y


def lookup(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": read(inputs["z"], inputs["table"])}


def lookup_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, z=(T, 3, 2), table=(3, 4, 5)), {}, {}


def MemoryLayer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": read(linear(inputs["x"], params, "z"), params["table"]) + params["b"]}


def MemoryLayer_example(rng: np.random.Generator, T: int) -> Example:
    C, K, I, E = 4, 2, 3, 5
    params = weights(rng, z=(C, K, I)) | draws(rng, table=(K, 2**I, E), b=(E,))
    return draws(rng, x=(T, C)), params, {"K": K, "I": I, "E": E}
