"""The minimal GRU: the gate does not see the state."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, sigmoid, weights


def min_gru(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, gate = inputs["x"], sigmoid(inputs["z"])
    hidden = np.zeros_like(x)
    state = np.zeros(x.shape[1])
    for t in range(len(x)):
        state = (1 - gate[t]) * state + gate[t] * x[t]
        hidden[t] = state
    return {"h": hidden}


def min_gru_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 5), z=(T, 5)), {}, {}


def MinGRU(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return min_gru({"x": linear(inputs["x"], params, "g"), "z": linear(inputs["x"], params, "z")}, {}, {})


def MinGRU_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 5, 4
    params = weights(rng, z=(C, N), g=(C, N))
    params |= {"z.bias": rng.standard_normal(N), "g.bias": rng.standard_normal(N)}
    return draws(rng, x=(T, C)), params, {"N": N}
