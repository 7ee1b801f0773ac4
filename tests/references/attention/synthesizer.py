"""Synthesizers: softmax weights from the query's token alone, or from a table."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, weights
from .softmax import pool


def SynthesizerDense(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    hidden = np.maximum(linear(x, params, "hidden"), 0)
    score = np.einsum("thf,hfs->tsh", hidden, params["W"])
    o = pool(score, linear(x, params, "v"), np.tri(len(x)))
    return {"y": linear(o, params, "y", contracted=2)}


def SynthesizerDense_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, F = 7, 3, 4, 5
    params = weights(rng, hidden=(C, H, F), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    params |= draws(rng, W=(H, F, T)) | {"hidden.bias": rng.standard_normal((H, F))}
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "F": F}


def SynthesizerRandom(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    o = pool(params["R"].transpose(1, 2, 0), linear(x, params, "v"), np.tri(len(x)))
    return {"y": linear(o, params, "y", contracted=2)}


def SynthesizerRandom_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 4
    params = weights(rng, v=(C, H, D)) | weights(rng, 2, y=(H, D, C)) | draws(rng, R=(H, T, T))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}
