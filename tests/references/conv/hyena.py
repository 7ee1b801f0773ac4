"""Hyena: a convolution and a gate at each order; the layer's filters from a network with sines of the position."""

from __future__ import annotations

import math

import numpy as np

from ..numerics import Example, Sizes, Tensors, causal_filter, draws, linear, weights


def hyena(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z = inputs["v"]
    for p in range(sizes["P"]):
        z = inputs["g"][:, p] * (causal_filter(z, inputs["w"][p]) + inputs["skip"][p] * z)
    return {"y": z}


def hyena_example(rng: np.random.Generator, T: int) -> Example:
    P, L, C = 3, 6, 4
    return draws(rng, v=(T, C), g=(T, P, C), w=(P, L, C), skip=(P, C)), {}, {"P": P}


def Hyena(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, P, L, B, C = inputs["x"], sizes["P"], sizes["L"], sizes["B"], inputs["x"].shape[1]
    projected = linear(x, params, "a")
    streams = [causal_filter(projected[:, k], params["short"][k]) for k in range(P + 1)]
    w = np.zeros((P, L, C))
    for place in range(L):
        time = place / L
        bands = 2 * math.pi * np.arange(B) * time
        hidden = np.concatenate([[time], np.cos(bands), np.sin(bands)])
        for m in range(sizes["M"]):
            hidden = np.sin(14 * linear(hidden, params, f"hid{m}"))
        for c in range(C):
            decay = math.log(100) * (1 / 1.5 + (1 / 0.3 - 1 / 1.5) * c / C)
            w[:, place, c] = hidden @ params["w.weight"][:, :, c] * math.exp(-decay * time)
    gates = np.stack(streams[1:], axis=1)
    o = hyena({"v": streams[0], "g": gates, "w": w, "skip": params["skip"]}, {}, {"P": P})["y"]
    return {"y": linear(o, params, "y")}


def Hyena_example(rng: np.random.Generator, T: int) -> Example:
    P, L, W, B, F, M, C = 2, T + 2, 3, 2, 5, 3, 4
    params = weights(rng, a=(C, P + 1, C), hid0=(2 * B + 1, F), hid1=(F, F), hid2=(F, F), w=(F, P, C), y=(C, C))
    params |= {f"hid{m}.bias": rng.standard_normal(F) for m in range(M)}
    params |= draws(rng, short=(P + 1, W, C), skip=(P, C))
    return draws(rng, x=(T, C)), params, {"P": P, "L": L, "W": W, "B": B, "F": F, "M": M}
