"""Multi-dimensional LSTM over a grid, cell by cell; a, f, g, u are the input, forget and output gates, S the cell."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, sigmoid, weights


def md_lstm(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    rows, columns, _ = x.shape
    width = params["a.weight"].shape[1]
    hidden, cell = np.zeros((rows + 1, columns + 1, width)), np.zeros((rows + 1, columns + 1, width))
    for i in range(rows):
        for j in range(columns):
            above, beside = hidden[i, j + 1], hidden[i + 1, j]
            a, f, g, u, z = (
                linear(x[i, j], params, name) + linear(above, params, f"{name}_2") + linear(beside, params, f"{name}_3")
                for name in "afguz"
            )
            kept = sigmoid(f) * cell[i, j + 1] + sigmoid(g) * cell[i + 1, j]
            cell[i + 1, j + 1] = kept + sigmoid(a) * np.tanh(z)
            hidden[i + 1, j + 1] = sigmoid(u) * np.tanh(cell[i + 1, j + 1])
    return {"h": hidden[1:, 1:]}


def md_lstm_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 3, 4
    params = {}
    for name in "afguz":
        params |= weights(rng, **{name: (C, N), f"{name}_2": (N, N), f"{name}_3": (N, N)})
        params[f"{name}.bias"] = rng.standard_normal(N)
    return draws(rng, x=(T, 5, C)), params, {"N": N}
