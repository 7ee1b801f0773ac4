"""LSTM with coupled gates and peepholes, entrywise in its two states, one step at a time."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, sigmoid, weights


def para_lstm(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    (af, ac, ao), (pf, po) = params["a"], params["p"]
    cell, state, hidden = np.zeros(len(af)), np.zeros(len(af)), []
    for x in inputs["x"]:
        keep = sigmoid(linear(x, params, "f") + af * state + pf * cell)
        cell = keep * cell + (1 - keep) * np.tanh(linear(x, params, "g") + ac * state)
        state = sigmoid(linear(x, params, "o") + ao * state + po * cell) * np.tanh(cell)
        hidden.append(state)
    return {"h": np.array(hidden)}


def para_lstm_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 5, 4
    params = weights(rng, f=(C, N), g=(C, N), o=(C, N)) | draws(rng, a=(3, N), p=(2, N))
    params |= {f"{name}.bias": rng.standard_normal(N) for name in "fgo"}
    return draws(rng, x=(T, C)), params, {"N": N}
