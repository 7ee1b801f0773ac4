"""iTransformer: a post-norm encoder over variates, between a normalisation of each history and its inverse."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, gelu, layer_norm, linear, under, weights
from .softmax import attend


def Encoder(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (linear(x, params, name) for name in ("q", "k", "v"))
    a = attend(q, k, v, np.ones((len(x), len(x))))
    z = layer_norm(x + linear(a, params, "z", contracted=2), eps=1e-5)
    return {"y": layer_norm(z + linear(gelu(linear(z, params, "hidden")), params, "y"), eps=1e-5)}


def _layer(rng: np.random.Generator, width: int, H: int, C: int, F: int) -> Tensors:
    params = weights(rng, q=(width, H, C), k=(width, H, C), v=(width, H, C), hidden=(width, F), y=(F, width))
    params |= weights(rng, 2, z=(H, C, width))
    shapes = {"q": (H, C), "k": (H, C), "v": (H, C), "hidden": (F,), "y": (width,), "z": (width,)}
    return params | draws(rng, **{f"{name}.bias": shape for name, shape in shapes.items()})


def Encoder_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 6)), _layer(rng, 6, 2, 4, 5), {"H": 2, "D": 4, "F": 5}


def Variates(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    level, deviation = x.mean(axis=0), np.sqrt(x.var(axis=0) + 1e-5)
    z = linear(((x - level) / deviation).T, params, "E")
    for layer in range(sizes["L"]):
        z = Encoder({"x": z}, under(params, f"Z.{layer}"), {})["y"]
    return {"y": linear(layer_norm(z, eps=1e-5), params, "out").T * deviation + level}


def Variates_example(rng: np.random.Generator, T: int) -> Example:
    N, D, L, H, R = 4, 6, 2, 2, 3
    params = weights(rng, E=(T, D), out=(D, R)) | draws(rng, **{"E.bias": (D,), "out.bias": (R,)})
    for layer in range(L):
        params |= {f"Z.{layer}.{name}": value for name, value in _layer(rng, D, H, D // H, 4 * D).items()}
    return draws(rng, x=(T, N)), params, {"D": D, "L": L, "H": H, "R": R}
