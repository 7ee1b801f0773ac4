"""A short causal depthwise convolution; tap 0 is the current token's."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, causal_filter, draws, silu


def short_conv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": silu(causal_filter(inputs["x"], inputs["w"]))}


def short_conv_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 5), w=(4, 5)), {}, {}


def ShortConv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": silu(causal_filter(inputs["x"], params["y.weight"].T) + params["y.bias"])}


def ShortConv_example(rng: np.random.Generator, T: int) -> Example:
    params = {"y.weight": rng.standard_normal((5, 3)), "y.bias": rng.standard_normal(5)}
    return draws(rng, x=(T, 5)), params, {"W": 3}
