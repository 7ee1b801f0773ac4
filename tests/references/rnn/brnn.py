"""Two recurrent networks, one from each end; their hidden states side by side."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, weights


def _one_way(x: Array, params: Tensors, name: str) -> Array:
    state, hidden = np.zeros(params[f"{name}.weight"].shape[1]), []
    for token in x:
        state = np.tanh(linear(token, params, name) + linear(state, params, f"{name}_2"))
        hidden.append(state)
    return np.array(hidden)


def brnn(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    ahead, back = _one_way(inputs["x"], params, "f"), _one_way(inputs["x"][::-1], params, "b")[::-1]
    return {"y": np.concatenate([ahead, back], axis=1)}


def brnn_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 5, 4
    params = weights(rng, f=(C, N), f_2=(N, N), b=(C, N), b_2=(N, N))
    params |= {f"{name}.bias": rng.standard_normal(N) for name in ("f", "f_2", "b", "b_2")}
    return draws(rng, x=(T, C)), params, {"N": N}
