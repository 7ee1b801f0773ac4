"""Axial Transformer: lines of a picture attend along one axis; the decoder is a function of earlier pixels alone."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, layer_norm, linear, softmax, under, weights


def lines(x: Array, params: Tensors, masked: bool) -> Array:
    """Attention along the second axis, and the residual."""
    q, k, v = (linear(layer_norm(x), params, name) for name in "qkv")
    o = np.zeros_like(v)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            seen = slice(0, j + 1 if masked else None)
            for h in range(q.shape[2]):
                o[i, j, h] = softmax(k[i, seen, h] @ q[i, j, h] / np.sqrt(q.shape[-1])) @ v[i, seen, h]
    return x + linear(o, params, "y", 2)


def AxialRow(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": lines(inputs["x"], params, masked=False)}


def AxialRowMasked(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": lines(inputs["x"], params, masked=True)}


def AxialColumnMasked(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": lines(inputs["x"].swapaxes(0, 1), params, masked=True).swapaxes(0, 1)}


def line_params(rng: np.random.Generator, C: int, H: int, D: int) -> Tensors:
    return weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))


def AxialRow_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4, 4)), line_params(rng, 4, 2, 3), {"H": 2, "D": 3}


AxialRowMasked_example = AxialRow_example
AxialColumnMasked_example = AxialRow_example


def AxialDecoder(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, W = inputs["x"], sizes["W"]
    rows = -(-len(x) // W)
    e = np.zeros((rows * W, x.shape[1]))
    e[: len(x)] = x
    e = e.reshape(rows, W, -1)
    outer = lines(e, under(params, "row"), masked=False)
    outer = AxialColumnMasked({"x": outer}, under(params, "outer"), {})["y"]
    z = np.zeros_like(e)
    z[1:] += outer[:-1]
    z[:, 1:] += e[:, :-1]
    return {"y": lines(z, under(params, "inner"), masked=True).reshape(rows * W, -1)[: len(x)]}


def AxialDecoder_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 4, 2, 3
    names = ("row", "outer", "inner")
    params = {f"{name}.{key}": value for name in names for key, value in line_params(rng, C, H, D).items()}
    return draws(rng, x=(T, C)), params, {"W": 3, "H": H, "D": D}
