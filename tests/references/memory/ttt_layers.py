"""The layers of test-time training: pairs turned as complex numbers, and one norm over all heads behind the memory."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, layer_norm, linear, sigmoid, weights
from .ttt_linear import ttt_linear
from .ttt_mlp import ttt_mlp


def turned(x: Array, m: int) -> Array:
    """Pairs of neighbours as complex numbers, turned by the position in the mini-batch."""
    T, _, D = x.shape
    angle = (np.arange(T) % m)[:, None, None] * 10000.0 ** (-np.arange(0, D, 2) / D)
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


def mixed(x: Array, params: Tensors, m: int, base: float) -> Tensors:
    """What both layers hand to their memory."""
    inputs = {"q": turned(linear(x, params, "a"), m), "k": turned(linear(x, params, "b"), m), "v": linear(x, params, "v")}
    inputs["lr"] = base * sigmoid(linear(x, params, "lr")) / inputs["q"].shape[2]
    inputs["pos"] = np.maximum(1 / np.arange(1, m + 1) + params["learn"], 0)
    return inputs | params


def closed(o: Array, params: Tensors) -> Array:
    """One norm over all heads, then the last linear map."""
    normed = layer_norm(o.reshape(len(o), -1)).reshape(o.shape)
    return linear(params["norm"] * normed + params["norm_bias"], params, "y", contracted=2)


def TTTLinear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    o = ttt_linear(mixed(inputs["x"], params, sizes["M"], 1.0), {}, {"m": sizes["M"]})["o"]
    return {"y": closed(o, params)}


def TTTLinear_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, M = 7, 2, 4, 3
    params = weights(rng, a=(C, H, D), b=(C, H, D), v=(C, H, D), lr=(C, H)) | weights(rng, 2, y=(H, D, C))
    params |= draws(rng, Ws=(H, D, D), bs=(H, D), gamma=(H, D), beta=(H, D), norm=(H, D), norm_bias=(H, D), learn=(M,))
    params["lr.bias"] = rng.standard_normal(H)
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "M": M}


def TTTMLP(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    o = ttt_mlp(mixed(inputs["x"], params, sizes["M"], 0.1), {}, {"m": sizes["M"]})["o"]
    return {"y": closed(o, params)}


def TTTMLP_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, F, M = 7, 2, 4, 5, 3
    params = weights(rng, a=(C, H, D), b=(C, H, D), v=(C, H, D), lr=(C, H)) | weights(rng, 2, y=(H, D, C))
    params |= draws(rng, Ws=(H, D, F), bs=(H, F), Vs=(H, F, D), cs=(H, D), gamma=(H, D), beta=(H, D))
    params |= draws(rng, norm=(H, D), norm_bias=(H, D), learn=(M,)) | {"lr.bias": rng.standard_normal(H)}
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "F": F, "M": M}
