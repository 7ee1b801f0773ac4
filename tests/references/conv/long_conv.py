"""A causal convolution as long as the sequence, and the layer with a smoothed and squashed kernel."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, causal_filter, draws, gelu, linear, sigmoid, weights


def long_conv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": causal_filter(inputs["x"], inputs["w"])}


def long_conv_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 5), w=(T, 5)), {}, {}


long_conv_fft, long_conv_fft_example = long_conv, long_conv_example


def LongConv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, k, M = inputs["x"], params["k"], sizes["M"]
    smooth = np.zeros_like(k)
    for l in range(len(k)):
        window = k[max(0, l - M // 2) : l - M // 2 + M]
        smooth[l] = window.sum(axis=0) / M
    squashed = np.sign(smooth) * np.maximum(np.abs(smooth) - 0.001, 0)
    z = gelu(causal_filter(x, squashed) + params["D"] * x)
    return {"y": linear(z, params, "y") * sigmoid(linear(z, params, "y_2"))}


def LongConv_example(rng: np.random.Generator, T: int) -> Example:
    c, L = 5, T + 3
    params = weights(rng, y=(c, c), y_2=(c, c)) | draws(rng, k=(L, c), D=(c,))
    params |= {"y.bias": rng.standard_normal(c), "y_2.bias": rng.standard_normal(c)}
    return draws(rng, x=(T, c)), params, {"L": L, "M": 3}
