"""FFNified attention, its circular variant, filters merged into one, and the two blocks."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, linear, weights
from .gn_conv import depthwise


def _near(x: Array, w: Array) -> Array:
    return depthwise({"x": x, "w": w}, {}, {})["y"]


def ffnified(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": _near(gelu(_near(inputs["q"], inputs["keys"])), inputs["values"])}


def ffnified_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 4, 2), keys=(3, 5, 2), values=(3, 5, 2)), {}, {}


def _circular(x: Array, w: Array) -> Array:
    """As a sum of rolled images."""
    y = np.zeros_like(x)
    for a in range(w.shape[0]):
        for b in range(w.shape[1]):
            y += w[a, b] * np.roll(x, (w.shape[0] // 2 - a, w.shape[1] // 2 - b), axis=(0, 1))
    return y


def ffnified_circle(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": _circular(gelu(_circular(inputs["q"], inputs["keys"])), inputs["values"])}


ffnified_circle_example = ffnified_example


def two_filters(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": _near(inputs["x"], inputs["large"]) + _near(inputs["x"], inputs["small"])}


def two_filters_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4, 2), large=(5, 7, 2), small=(3, 3, 2)), {}, {}


def FFNifiedMixer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    named = {"q": linear(inputs["x"], params, "q"), "keys": params["keys"], "values": params["values"]}
    return {"y": inputs["x"] + params["gain"] * ffnified(named, {}, {})["y"]}


def FFNifiedMixer_example(rng: np.random.Generator, T: int) -> Example:
    C, w = 3, 3
    params = weights(rng, q=(C, C)) | draws(rng, keys=(w, w, C), values=(w, w, C), gain=(C,))
    return draws(rng, x=(T, 4, C)), params | {"q.bias": rng.standard_normal(C)}, {"w": w}


def FFNifiedChannels(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    hidden = gelu(linear(_near(inputs["x"], params["near"]), params, "hid"))
    return {"y": inputs["x"] + params["gain"] * linear(hidden, params, "y")}


def FFNifiedChannels_example(rng: np.random.Generator, T: int) -> Example:
    C, F, w = 3, 5, 3
    params = weights(rng, hid=(C, F), y=(F, C)) | draws(rng, near=(w, w, C), gain=(C,))
    params |= {"hid.bias": rng.standard_normal(F), "y.bias": rng.standard_normal(C)}
    return draws(rng, x=(T, 4, C)), params, {"F": F, "w": w}
