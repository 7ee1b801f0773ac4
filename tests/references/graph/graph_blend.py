"""TGBFormer: attention over all proposals, a normalised graph convolution, and a gate between the two."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, sigmoid, softmax, weights


def convolved(x: Array, frame: Array) -> Array:
    adjacency = (np.abs(frame[:, None] - frame) <= 1).astype(float)
    scale = np.diag(adjacency.sum(axis=1) ** -0.5)
    return scale @ adjacency @ scale @ x


def graph_convolution(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": convolved(inputs["x"], inputs["frame"])}


def graph_convolution_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4)) | {"frame": rng.integers(0, 4, T)}, {}, {}


def GraphBlend(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (linear(x, params, name) for name in "qkv")
    heads = [softmax(q[:, h] @ k[:, h].T / np.sqrt(sizes["D"])) @ v[:, h] for h in range(sizes["H"])]
    whole = linear(np.stack(heads, axis=1), params, "whole", 2)
    part = np.maximum(convolved(linear(x, params, "w"), inputs["frame"]), 0)
    g = sigmoid(linear(whole, params, "g") + linear(part, params, "g_2"))
    return {"y": g * whole + (1 - g) * part}


def GraphBlend_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 4, 2, 3
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D), w=(C, C), g=(C, C), g_2=(C, C))
    params |= weights(rng, 2, whole=(H, D, C)) | draws(rng, **{"g.bias": (C,)})
    return draws(rng, x=(T, C)) | {"frame": rng.integers(0, 4, T)}, params, {"H": H, "D": D}
