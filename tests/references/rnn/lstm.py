"""LSTM with the conventions of torch.nn; u is the output gate, S the cell."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, sigmoid, weights


def lstm(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    hidden = np.zeros((len(x), params["i.weight"].shape[1]))
    state, cell = np.zeros(hidden.shape[1]), np.zeros(hidden.shape[1])
    for t in range(len(x)):
        i, f, g, u = (linear(x[t], params, name) + linear(state, params, f"{name}_2") for name in "ifgu")
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        state = sigmoid(u) * np.tanh(cell)
        hidden[t] = state
    return {"h": hidden}


def lstm_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 5, 4
    params = {}
    for name in "ifgu":
        params |= weights(rng, **{name: (C, N), f"{name}_2": (N, N)})
        params |= {f"{name}.bias": rng.standard_normal(N), f"{name}_2.bias": rng.standard_normal(N)}
    return draws(rng, x=(T, C)), params, {"N": N}
