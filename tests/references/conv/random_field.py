"""Smooth random fields from white noise, and an image read where the affine map of each pixel leads."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws
from .conv_upsample import read


def random_field(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    noise = inputs["noise"]
    rows, columns = noise.shape[:2]
    fi, fj = np.fft.fftfreq(rows, 1 / rows), np.fft.fftfreq(columns, 1 / columns)
    squared = (fi[:, None] ** 2 + fj**2)[..., None]
    spectrum = np.fft.fft2(noise, axes=(0, 1)) * (1 + inputs["r"] ** 2 * squared) ** (-inputs["gamma"] / 2)
    raw = np.fft.ifft2(spectrum, axes=(0, 1)).real
    return {"field": raw / np.sqrt(1e-12 + (raw**2).mean(axis=(0, 1)))}


def random_field_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, noise=(T, 5, 3)) | {"r": rng.uniform(0, 2, 3), "gamma": rng.uniform(1, 3, 3)}, {}, {}


def _moved(x: Array, field: Array) -> Array:
    rows, columns = x.shape[:2]
    centre = (rows - 1) / 2, (columns - 1) / 2
    y = np.zeros_like(x)
    for i in range(rows):
        for j in range(columns):
            from_centre = np.array([i - centre[0], j - centre[1]])
            matrix = np.eye(2) + field[i, j, :4].reshape(2, 2)
            y[i, j] = read(x, *(matrix @ from_centre + centre + field[i, j, 4:]))
    return y


def warp(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": _moved(inputs["x"], inputs["field"])}


def warp_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4, 3)) | {"field": rng.uniform(-0.4, 0.4, (T, 4, 6))}, {}, {}


def random_warp(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": _moved(inputs["x"], inputs["size"] * random_field(inputs, {}, {})["field"])}


def random_warp_example(rng: np.random.Generator, T: int) -> Example:
    drawn = draws(rng, x=(T, 4, 3), noise=(T, 4, 6))
    return drawn | {n: rng.uniform(0.1, 2, 6) for n in ("r", "gamma")} | {"size": rng.uniform(0, 0.2, 6)}, {}, {}
