"""Stick-breaking attention: walk back from the query and break off the stick, token by token."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, sigmoid, weights


def broken(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """The output, and what is left of each stick."""
    o, rest = np.zeros((*q.shape[:2], v.shape[2])), np.ones(q.shape[:2])
    for t in range(len(q)):
        for h in range(q.shape[1]):
            for s in reversed(range(t)):
                share = sigmoid(q[t, h] @ k[s, h] / np.sqrt(q.shape[2])) * rest[t, h]
                o[t, h] += share * v[s, h]
                rest[t, h] -= share
    return o, rest


def stick_breaking(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": broken(inputs["q"], inputs["k"], inputs["v"])[0]}


def stick_breaking_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)), {}, {}


stick_breaking_product = stick_breaking_fold = stick_breaking
stick_breaking_product_example = stick_breaking_fold_example = stick_breaking_example


def stick_breaking_rest(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    o, rest = broken(inputs["q"], inputs["k"], inputs["v"])
    return {"o": o + rest[:, :, None] * inputs["v"]}


stick_breaking_rest_example = stick_breaking_example


def StickBreaking(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    return {"y": linear(stick_breaking_rest(mixed, {}, {})["o"], params, "y", contracted=2)}


def StickBreaking_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}
