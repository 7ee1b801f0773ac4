"""A set folded level by level, neighbours paired and an odd last one passed up, by a GRU made symmetric."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, sigmoid, under, weights


def _cell(x: Array, h: Array, params: Tensors) -> Array:
    """torch.nn.GRUCell, rows reset, update, candidate."""
    given = params["W"] @ x + params.get("bi", np.zeros((3, len(x))))
    kept = params["U"] @ h + params.get("bh", np.zeros((3, len(x))))
    reset, update = sigmoid(given[0] + kept[0]), sigmoid(given[1] + kept[1])
    return (1 - update) * np.tanh(given[2] + reset * kept[2]) + update * h


def lcm(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    cell = under(params, "gru_tree")
    level = list(np.maximum(linear(inputs["x"], params, "z"), 0))
    while len(level) > 1:
        paired = [(_cell(a, b, cell) + _cell(b, a, cell)) / 2 for a, b in zip(level[::2], level[1::2], strict=False)]
        level = paired + level[len(level) // 2 * 2 :]
    return {"y": level[0]}


def lcm_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 5, 4
    params = weights(rng, z=(C, N)) | {f"gru_tree.{name}": rng.standard_normal((3, N, N)) / 2 for name in "WU"}
    return draws(rng, x=(T, C)), params | draws(rng, **{"gru_tree.bi": (3, N), "gru_tree.bh": (3, N)}), {"N": N}
