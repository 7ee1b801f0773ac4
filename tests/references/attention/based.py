"""Linear attention with the Taylor map of the paper, its features listed one by one."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, weights
from .performer import averaged


def taylor(x: Array) -> Array:
    """1, x_a, x_a^2 / sqrt(2), x_a x_b for a < b; after a scaling by d^(-1/4)."""
    d = x.shape[-1]
    x = x / d**0.25
    pairs = [x[..., a] * x[..., b] * (np.sqrt(0.5) if a == b else 1) for a in range(d) for b in range(a, d)]
    return np.concatenate([np.ones((*x.shape[:-1], 1)), x, np.stack(pairs, axis=-1)], axis=-1)


def based(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    return {"o": averaged(taylor(q), taylor(k), v, list(range(1, len(q) + 1)))}


def based_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 4), k=(T, 3, 4), v=(T, 3, 5)), {}, {}


based_quadratic = based
based_quadratic_example = based_example


def Based(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v")}
    return {"y": linear(based(mixed, {}, {})["o"], params, "y", contracted=2)}


def Based_example(rng: np.random.Generator, T: int) -> Example:
    C, H, F, D = 7, 3, 4, 5
    params = weights(rng, q=(C, H, F), k=(C, H, F), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "F": F, "D": D}
