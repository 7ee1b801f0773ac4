"""Adaptive polyphase anchoring: roll the phase of largest norm to the front; and patches of what was rolled."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, linear, weights


def anchored(x: Array, p: int) -> Array:
    rows, columns = x.shape[0] // p * p, x.shape[1] // p * p
    best, at = -1.0, (0, 0)
    for u in range(p):
        for v in range(p):
            norm = float((x[:rows][u::p, :columns][:, v::p] ** 2).sum())
            if norm > best:
                best, at = norm, (u, v)
    return np.roll(x, (-at[0], -at[1]), axis=(0, 1))


def anchor(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": anchored(inputs["x"], sizes["p"])}


def anchor_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T + 2, 6, 2)), {}, {"p": 3}


def AnchoredPatches(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z, p = anchored(inputs["x"], sizes["p"]), sizes["p"]
    rows, columns = z.shape[0] // p, z.shape[1] // p
    patches = [linear(z[a * p : a * p + p, b * p : b * p + p], params, "f", 3) for a in range(rows) for b in range(columns)]
    return {"y": gelu(np.array(patches)).mean(axis=0)}


def AnchoredPatches_example(rng: np.random.Generator, T: int) -> Example:
    params = weights(rng, 3, f=(2, 2, 3, 4)) | draws(rng, **{"f.bias": (4,)})
    return draws(rng, x=(T + 1, 6, 3)), params, {"p": 2, "D": 4}
