"""RWKV-4: the average of the past written out as sums over all pairs; time mixing and channel mixing."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, sigmoid, weights


def wkv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    k, v, w, u = (inputs[name] for name in ("k", "v", "w", "u"))
    o = np.zeros_like(v)
    for t in range(len(k)):
        exponents = np.stack([(t - 1 - s) * w + k[s] if s < t else u + k[t] for s in range(t + 1)])
        weight = np.exp(exponents - exponents.max(axis=0))
        o[t] = (weight * v[: t + 1]).sum(axis=0) / weight.sum(axis=0)
    return {"o": o}


def wkv_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, k=(T, 5), v=(T, 5), u=(5,)) | {"w": -rng.uniform(0.05, 2, 5)}, {}, {}


wkv_plain, wkv_plain_example = wkv, wkv_example


def shifted(x: Array, mix: Array) -> Array:
    """A mix of each token with the one before it."""
    before = np.concatenate([np.zeros_like(x[:1]), x[:-1]])
    return mix * x + (1 - mix) * before


def RWKV4(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    k, v, r = (linear(shifted(x, params[f"m{name}"]), params, name) for name in "kvr")
    o = wkv({"k": k, "v": v, "w": -np.exp(params["decay"]), "u": params["u"]}, {}, {})["o"]
    return {"y": linear(sigmoid(r) * o, params, "y")}


def RWKV4_example(rng: np.random.Generator, T: int) -> Example:
    C, A = 5, 4
    params = weights(rng, k=(C, A), v=(C, A), r=(C, A), y=(A, C))
    return draws(rng, x=(T, C)), params | draws(rng, mk=(C,), mv=(C,), mr=(C,), decay=(A,), u=(A,)), {"A": A}


def ChannelMix4(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    k = np.maximum(linear(shifted(x, params["mk"]), params, "k"), 0) ** 2
    return {"y": sigmoid(linear(shifted(x, params["mr"]), params, "r")) * linear(k, params, "y")}


def ChannelMix4_example(rng: np.random.Generator, T: int) -> Example:
    C, F = 5, 6
    params = weights(rng, k=(C, F), r=(C, C), y=(F, C)) | draws(rng, mk=(C,), mr=(C,))
    return draws(rng, x=(T, C)), params, {"F": F}
