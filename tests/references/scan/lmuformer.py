"""LMUFormer's block, and the spiking memory with its leaky neurons stepped one by one."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, causal_filter, draws, linear, weights
from .lmu import lmu


def LMUFormer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, gain, shift = inputs["x"], params["gain"], params["shift"]
    taps = params["z.weight"]  # [c, j, o]
    z = np.maximum(gain[0] * sum(causal_filter(x[:, c, None], taps[c]) for c in range(x.shape[1])) + shift[0], 0)
    m = lmu({"u": np.maximum(linear(z, params, "u"), 0)}, {}, sizes)["x"]
    h = np.maximum(linear(m, params, "h") + linear(z, params, "h_2"), 0)
    r = z + gain[1] * linear(h, params, "r") + shift[1]
    return {"y": r + gain[2] * linear(np.maximum(linear(r, params, "f"), 0), params, "y") + shift[2]}


def LMUFormer_example(rng: np.random.Generator, T: int) -> Example:
    c, C, N, W, F = 3, 4, 3, 3, 5
    params = weights(rng, 2, z=(c, W, C)) | weights(rng, u=(C,), h=(N, C), h_2=(C, C), r=(C, C), f=(C, F), y=(F, C))
    params |= draws(rng, gain=(3, C), shift=(3, C), **{"u.bias": (), "h_2.bias": (C,)})
    return draws(rng, x=(T, c)), params, {"C": C, "N": N, "theta": 9, "W": W, "F": F}


def fired(x: Array) -> Array:
    """Leaky neurons: half way to the input, a spike at 1, back to 0 after it."""
    voltage, spikes = np.zeros(x.shape[1:]), np.zeros_like(x)
    for t in range(len(x)):
        voltage = voltage + (x[t] - voltage) / 2
        spikes[t] = voltage >= 1
        voltage = np.where(spikes[t] == 1, 0, voltage)
    return spikes


def lif(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"s": fired(inputs["x"])}


def lif_example(rng: np.random.Generator, T: int) -> Example:
    return {"x": 1 + 2 * rng.standard_normal(T)}, {}, {}


def SpikingLMU(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    m = lmu({"u": fired(linear(x, params, "drive"))}, {}, sizes)["x"]
    spikes = fired(params["mgain"] * m + params["mshift"])
    h = params["gain"] * (linear(spikes, params, "h") + linear(x, params, "h_2")) + params["shift"]
    return {"s": fired(h)}


def SpikingLMU_example(rng: np.random.Generator, T: int) -> Example:
    c, C, N = 3, 4, 3
    params = weights(rng, drive=(c,), h=(N, C), h_2=(c, C)) | draws(rng, mgain=(N,), mshift=(N,), gain=(C,), shift=(C,))
    params["drive.bias"] = np.array(1.0)
    return {"x": (rng.uniform(0, 1, (T, c)) > 0.4) * 1.0}, params, {"C": C, "N": N, "theta": 9}
