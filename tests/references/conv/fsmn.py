"""Feed-forward sequential memory, plain and with dilation and dense links."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, causal_filter, draws, linear, weights


def both_sides(x: Array, w: Array, dilation: int = 1) -> Array:
    """A filter for each channel, centred at len(w) // 2, zeros outside."""
    y = np.zeros_like(x)
    for t in range(len(x)):
        for j in range(len(w)):
            s = t + dilation * (j - len(w) // 2)
            if 0 <= s < len(x):
                y[t] += w[j] * x[s]
    return y


def fsmn(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": inputs["p"] + both_sides(inputs["p"], inputs["w"])}


def fsmn_causal(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": inputs["p"] + causal_filter(inputs["p"], inputs["w"])}


def fsmn_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, p=(T, 4), w=(5, 4)), {}, {}


fsmn_causal_example = fsmn_example


def _projected(x: Array, params: Tensors) -> Array:
    return linear(np.maximum(linear(x, params, "hid"), 0), params, "p")


def FSMN(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    p = _projected(inputs["x"], params)
    return {"y": inputs["x"] + p + both_sides(p, params["w"])}


def _layer_params(rng: np.random.Generator, C: int, F: int) -> Tensors:
    return weights(rng, hid=(C, F), p=(F, C)) | {"hid.bias": rng.standard_normal(F)}


def FSMN_example(rng: np.random.Generator, T: int) -> Example:
    C, F, W = 4, 5, 3
    return draws(rng, x=(T, C)), _layer_params(rng, C, F) | draws(rng, w=(W, C)), {"F": F, "W": W}


def DilatedFSMN(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    p, w = _projected(inputs["x"], params), params["w"]

    def finished(x: Array, k: int) -> Array:
        mean, variance = x.mean(axis=0), x.var(axis=0)
        normed = params["scale"][k] * (x - mean) / np.sqrt(variance + 1e-5) + params["shift"][k]
        return np.maximum(normed, 0) + params["slope"][k] * np.minimum(normed, 0)

    first = finished(both_sides(p, w[0]), 0)
    second = finished(both_sides(first, w[1], 2) + both_sides(p, w[2], 2), 1)
    return {"y": inputs["x"] + second}


def DilatedFSMN_example(rng: np.random.Generator, T: int) -> Example:
    C, F, W = 4, 5, 3
    params = _layer_params(rng, C, F) | draws(rng, w=(3, W, C), scale=(2, C), shift=(2, C))
    return draws(rng, x=(T, C)), params | {"slope": rng.uniform(0.1, 0.9, (2, C))}, {"F": F, "W": W}
