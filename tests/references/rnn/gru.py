"""GRU: with the reset gate after the recurrent matrix (torch.nn), and before it (as first published)."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, sigmoid, weights


def gru(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    hidden = np.zeros((len(x), params["r.weight"].shape[1]))
    state = np.zeros(hidden.shape[1])
    for t in range(len(x)):
        reset = sigmoid(linear(x[t], params, "r") + linear(state, params, "r_2"))
        update = sigmoid(linear(x[t], params, "z") + linear(state, params, "z_2"))
        proposal = np.tanh(linear(x[t], params, "g") + reset * linear(state, params, "g_2"))
        state = (1 - update) * proposal + update * state
        hidden[t] = state
    return {"h": hidden}


def gru_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 5, 4
    params = weights(rng, r=(C, N), r_2=(N, N), z=(C, N), z_2=(N, N), g=(C, N), g_2=(N, N))
    params |= {f"{name}.bias": rng.standard_normal(N) for name in ("r", "r_2", "z", "z_2", "g", "g_2")}
    return draws(rng, x=(T, C)), params, {"N": N}


def gru_reset_state(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    hidden = np.zeros((len(x), params["r.weight"].shape[1]))
    state = np.zeros(hidden.shape[1])
    for t in range(len(x)):
        reset = sigmoid(linear(x[t], params, "r") + linear(state, params, "r_2"))
        update = sigmoid(linear(x[t], params, "z") + linear(state, params, "z_2"))
        proposal = np.tanh(linear(x[t], params, "g") + linear(reset * state, params, "g_2"))
        state = (1 - update) * proposal + update * state
        hidden[t] = state
    return {"h": hidden}


def gru_reset_state_example(rng: np.random.Generator, T: int) -> Example:
    inputs, params, sizes = gru_example(rng, T)
    return inputs, {name: value for name, value in params.items() if not name.endswith("_2.bias")}, sizes
