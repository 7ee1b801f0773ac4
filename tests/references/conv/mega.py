"""MEGA's block, token by token."""

from __future__ import annotations

import math

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, rms_norm, sigmoid, silu, softmax, under, weights
from ..scan.ema import ema_damped


def _seen(t: int, w: int) -> range:
    return range(t // w * w, t + 1)


def chunk_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, bias = (inputs[name] for name in ("q", "k", "v", "bias"))
    o = np.zeros((len(q), v.shape[1]))
    for t in range(len(q)):
        seen = _seen(t, sizes["w"])
        scores = [q[t] @ k[s] / math.sqrt(q.shape[1]) + bias[t - s] for s in seen]
        o[t] = softmax(np.array(scores)) @ v[seen.start : t + 1]
    return {"o": o}


def chunk_attention_example(rng: np.random.Generator, T: int) -> Example:
    D, E, w = 3, 4, 5
    return draws(rng, q=(T, D), k=(T, D), v=(T, E), bias=(w,)), {}, {"w": w}


def chunk_attention_laplace(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, bias = (inputs[name] for name in ("q", "k", "v", "bias"))
    o = np.zeros((len(q), v.shape[1]))
    mean, deviation = math.sqrt(1 / 2), math.sqrt(1 / (4 * math.pi))
    for t in range(len(q)):
        seen = _seen(t, sizes["w"])
        for s in seen:
            score = q[t] @ k[s] / len(seen) + bias[t - s]
            o[t] += 0.5 * (1 + math.erf((score - mean) / (deviation * math.sqrt(2)))) * v[s]
    return {"o": o}


chunk_attention_laplace_example = chunk_attention_example


def GatedChunks(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, m = inputs["x"], inputs["m"]
    v = silu(linear(rms_norm(x), params, "v"))
    z = silu(linear(m, params, "z"))
    q, k = (params["scale"][i] * z + params["shift"][i] for i in (0, 1))
    o = chunk_attention({"q": q, "k": k, "v": v, "bias": params["bias"]}, {}, sizes)["o"]
    h = silu(linear(m, params, "h") + linear(o * silu(linear(m, params, "r_")), params, "h_2"))
    return {"y": x + sigmoid(linear(m, params, "u")) * (h - x)}


def chunk_params(rng: np.random.Generator, C: int, sizes: Sizes) -> Tensors:
    E, Z, w = (sizes[name] for name in "EZw")
    params = weights(rng, v=(C, E), u=(C, C), z=(C, Z), r_=(C, E), h=(C, C), h_2=(E, C))
    params |= draws(rng, **{"v.bias": (E,), "u.bias": (C,), "z.bias": (Z,), "r_.bias": (E,), "h.bias": (C,)})
    return params | draws(rng, scale=(2, Z), shift=(2, Z), bias=(w,))


def GatedChunks_example(rng: np.random.Generator, T: int) -> Example:
    sizes = {"E": 6, "Z": 3, "w": 5}
    return draws(rng, x=(T, 4), m=(T, 4)), chunk_params(rng, 4, sizes), sizes


def below(x: Array, m: Array, params: Tensors, sizes: Sizes) -> Tensors:
    return GatedChunks({"x": x, "m": m}, under(params, "y"), sizes)


def MEGA(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    g = rms_norm(inputs["x"])
    given = {"alpha": sigmoid(params["alpha"]), "delta": sigmoid(params["delta"]), "beta": params["beta"]}
    averaged = ema_damped(given | {"x": g, "eta": params["gamma"] / math.sqrt(sizes["N"])}, {}, {})["y"]
    return below(inputs["x"], silu(averaged + params["omega"] * g), params, sizes)


def MEGA_example(rng: np.random.Generator, T: int) -> Example:
    C, sizes = 4, {"N": 3, "E": 6, "Z": 3, "w": 5}
    params = {f"y.{name}": value for name, value in chunk_params(rng, C, sizes).items()}
    params |= draws(rng, alpha=(C, 3), delta=(C, 3), beta=(C, 3), gamma=(C, 3), omega=(C,))
    return draws(rng, x=(T, C)), params, sizes
