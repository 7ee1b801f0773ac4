"""The simple recurrent network, and its variant that feeds the output back."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, weights


def elman(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    state, hidden = np.zeros(params["h.weight"].shape[1]), []
    for x in inputs["x"]:
        state = np.tanh(linear(x, params, "h") + linear(state, params, "h_2"))
        hidden.append(state)
    return {"h": np.array(hidden)}


def elman_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 5, 4
    params = weights(rng, h=(C, N), h_2=(N, N)) | {"h.bias": rng.standard_normal(N), "h_2.bias": rng.standard_normal(N)}
    return draws(rng, x=(T, C)), params, {"N": N}


def jordan(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    fed, outputs = np.zeros(params["y.weight"].shape[1]), []
    for x in inputs["x"]:
        fed = linear(np.tanh(linear(x, params, "h") + linear(fed, params, "h_2")), params, "y")
        outputs.append(fed)
    return {"y": np.array(outputs)}


def jordan_example(rng: np.random.Generator, T: int) -> Example:
    C, N, M = 5, 4, 3
    params = weights(rng, h=(C, N), h_2=(M, N), y=(N, M)) | draws(rng, **{"h.bias": (N,), "y.bias": (M,)})
    return draws(rng, x=(T, C)), params, {"N": N, "M": M}
