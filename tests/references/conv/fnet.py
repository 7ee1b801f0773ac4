"""A two-dimensional discrete Fourier transform as two matrices, and the block around it."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, layer_norm, linear, weights


def _fourier(n: int) -> Array:
    return np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)


def fnet(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    return {"y": (_fourier(len(x)) @ x @ _fourier(x.shape[1])).real}


def fnet_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 5)), {}, {}


fnet_cosines, fnet_cosines_example = fnet, fnet_example


def FNet(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, (first, second), (low, high) = inputs["x"], params["scale"], params["shift"]
    z = first * layer_norm(x + fnet(inputs, {}, {})["y"]) + low
    hidden = gelu(linear(z, params, "hid"))
    return {"y": second * layer_norm(z + linear(hidden, params, "y")) + high}


def FNet_example(rng: np.random.Generator, T: int) -> Example:
    C, F = 5, 7
    params = weights(rng, hid=(C, F), y=(F, C)) | draws(rng, scale=(2, C), shift=(2, C))
    params |= {"hid.bias": rng.standard_normal(F), "y.bias": rng.standard_normal(C)}
    return draws(rng, x=(T, C)), params, {"F": F}
