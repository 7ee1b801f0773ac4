"""Voxels sorted by window and cut into groups, each by itself."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws
from . import retention


def window_key(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    W, Z = sizes["W"], sizes["Z"]
    keys = []
    for x, y, z in zip(inputs["x"] + sizes["S"], inputs["y"] + sizes["S"], inputs["z"], strict=True):
        window = np.ravel_multi_index((x // W, y // W, z // Z), (1000, sizes["NY"], sizes["NZ"]))
        keys.append(window * W * W * Z + np.ravel_multi_index((x % W, y % W, z % Z), (W, W, Z)))
    return {"key": np.array(keys, float)}


def window_key_example(rng: np.random.Generator, T: int) -> Example:
    inputs = {"x": rng.integers(0, 12, T), "y": rng.integers(0, 12, T), "z": rng.integers(0, 8, T)}
    return inputs, {}, {"W": 3, "Z": 4, "NY": 5, "NZ": 2, "S": 1}


def grouped_retention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    o, G = np.zeros_like(inputs["v"]), sizes["G"]
    for start in range(0, len(o), G):
        own = {name: value[start : start + G] for name, value in inputs.items()}
        o[start : start + G] = retention.retention(own, {}, {})["o"]
    return {"o": o}


def grouped_retention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 3), k=(T, 2, 3), v=(T, 2, 4)), {}, {"G": 4}


def group(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, G = inputs["x"], sizes["G"]
    order = np.argsort(inputs["key"], kind="stable")
    z = np.zeros((-(-len(x) // G) * G, x.shape[1]))
    z[: len(x)] = x[order]
    place = np.zeros(len(x))
    place[order] = np.arange(len(x))
    return {"z": z.reshape(-1, G, x.shape[1]), "place": place}


def group_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4)) | {"key": rng.integers(0, T, T)}, {}, {"G": 4}
