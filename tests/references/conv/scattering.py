"""What a scattering transformer mixes between a wavelet transform and its inverse, by blocks and by rows."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, complex_draw, draws
from .dtcwt import G0, H0, dtcwt, inverse_dtcwt


def SVT(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    filters = {"h0": H0, "g0": G0}
    taken = dtcwt(inputs | filters, {}, {})
    bands = taken["high"][..., 0] + 1j * taken["high"][..., 1]
    width = bands.shape[2] // 4
    mixed = np.zeros_like(bands)
    for k in range(4):
        block = slice(k * width, (k + 1) * width)
        X = np.moveaxis(bands[:, :, block], 2, -1)
        hidden = X @ params["A"][0, k] + params["B"][0, k]
        hidden = np.maximum(hidden.real, 0) + 1j * np.maximum(hidden.imag, 0)
        mixed[:, :, block] = np.moveaxis(hidden @ params["A"][1, k] + params["B"][1, k], -1, 2)
    high = np.stack([mixed.real, mixed.imag], axis=-1)
    return {"y": inverse_dtcwt({"low": params["G"] * taken["low"], "high": high, **filters}, {}, {})["x"]}


def SVT_example(rng: np.random.Generator, T: int) -> Example:
    rows, columns, C = 2 * T, 4, 8
    params = {"A": complex_draw(rng, 2, 4, C // 4, C // 4), "B": complex_draw(rng, 2, 4, C // 4)}
    return draws(rng, x=(rows, columns, C)), params | draws(rng, G=(rows, columns, C)), {}


def band_mixing(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    bands = inputs["high"][..., 0] + 1j * inputs["high"][..., 1]
    mixed = np.stack([np.tensordot(A, row, axes=(0, 0)) for A, row in zip(inputs["A"], bands, strict=True)])
    return {"mixed": np.stack([mixed.real, mixed.imag], axis=-1)}


def band_mixing_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, high=(T, 3, 2, 6, 2)) | {"A": complex_draw(rng, T, 3, 3)}, {}, {}
