"""Codes of frames through a convolutional recurrence; a frame between its neighbours."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, softmax, under, weights
from .conv_gru import conv_gru, conv_gru_example


def frame_recurrence(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    h = conv_gru(inputs, under(params, "h"), sizes)["h"]
    added = np.array([linear(frame.mean(axis=(0, 1)), params, "code") for frame in h])
    return {"code": inputs["base"] + added}


def frame_recurrence_example(rng: np.random.Generator, T: int) -> Example:
    inputs, params, sizes = conv_gru_example(rng, T)
    params = {f"h.{name}": value for name, value in params.items()} | weights(rng, code=(sizes["N"], 4))
    return inputs | draws(rng, base=(T, 4)), params, sizes


def in_between(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, score = inputs["x"], inputs["score"]
    y = np.zeros_like(x)
    for t in range(len(x)):
        if 0 < t < len(x) - 1:
            share = softmax(score[t])[..., None]
            y[t] = share[:, :, 0] * x[t - 1] + share[:, :, 1] * x[t + 1]
        elif len(x) > 1:
            y[t] = x[1] if t == 0 else x[t - 1]
    return {"y": y}


def in_between_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 3, 2, 4), score=(T, 3, 2, 2)), {}, {}
