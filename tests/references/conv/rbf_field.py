"""A field from radial kernels around centres, normalised at each position; and the network on top of it."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, weights


def rbf_field(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    y = np.zeros((len(inputs["p"]), inputs["value"].shape[1]))
    for t, p in enumerate(inputs["p"]):
        near = [1 / (1 + np.sum((W @ (p - c)) ** 2)) for W, c in zip(inputs["W"], inputs["center"], strict=True)]
        y[t] = np.array(near) @ inputs["value"] / sum(near)
    return {"y": y}


def rbf_field_example(rng: np.random.Generator, T: int) -> Example:
    N, A, C = 6, 2, 3
    return draws(rng, p=(T, A), center=(N, A), W=(N, A, A), value=(N, C)), {}, {}


def RBFField(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    given = {"p": inputs["p"], **{name: params[name] for name in ("center", "W", "value")}}
    features = np.sin(params["freq"] * rbf_field(given, {}, {})["y"])
    return {"y": linear(np.maximum(linear(features, params, "hid"), 0), params, "y")}


def RBFField_example(rng: np.random.Generator, T: int) -> Example:
    N, A, C, F, E = 6, 2, 3, 5, 3
    params = weights(rng, hid=(C, F), y=(F, E)) | draws(rng, center=(N, A), W=(N, A, A), value=(N, C), freq=(C,))
    params |= {"hid.bias": rng.standard_normal(F), "y.bias": rng.standard_normal(E)}
    return draws(rng, p=(T, A)), params, {"N": N, "C": C, "F": F, "E": E}
