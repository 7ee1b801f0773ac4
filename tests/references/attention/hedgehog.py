"""Hedgehog: learned features of both signs under one softmax."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, softmax, weights
from .afn import afn


def both_signs(x: Array) -> Array:
    return softmax(np.concatenate([x, -x], axis=-1))


def Hedgehog(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (linear(inputs["x"], params, name) for name in ("q", "k", "v"))
    fq, fk = (both_signs(np.einsum("thd,hdn->thn", x, params[w])) for x, w in ((q, "wq"), (k, "wk")))
    return {"y": linear(afn({"fq": fq, "fk": fk, "v": v}, {}, {})["o"], params, "y", contracted=2)}


def Hedgehog_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 4
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params | draws(rng, wq=(H, D, D), wk=(H, D, D)), {"H": H, "D": D}
