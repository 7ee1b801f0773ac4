"""GRU with a recurrent weight for each channel, one step at a time."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, sigmoid, weights


def para_gru(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    hidden = np.zeros((len(x), params["u"].shape[0]))
    state = np.zeros(hidden.shape[1])
    for t in range(len(x)):
        update = sigmoid(linear(x[t], params, "z") + params["u"] * state)
        reset = sigmoid(linear(x[t], params, "r") + params["v"] * state)
        proposal = np.tanh(linear(x[t], params, "g") + params["w"] * reset * state)
        state = (1 - update) * state + update * proposal
        hidden[t] = state
    return {"h": hidden}


def para_gru_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 5, 4
    params = weights(rng, z=(C, N), r=(C, N), g=(C, N))
    params |= {f"{name}.bias": rng.standard_normal(N) for name in ("r", "z", "g")}
    params |= {name: rng.standard_normal(N) for name in ("u", "v", "w")}
    return draws(rng, x=(T, C)), params, {"N": N}
