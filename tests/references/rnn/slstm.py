"""sLSTM without a stabiliser: the gates are the plain exponentials that the paper's first equations have."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, layer_norm, linear, sigmoid, weights


def slstm(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    i, f, z, o = (inputs[name] for name in "ifzo")
    out, cell, normaliser = np.zeros(i.shape), np.zeros(i.shape[1:]), np.zeros(i.shape[1:])
    before = np.zeros(i.shape[1:])
    for t in range(len(i)):
        mixed = np.zeros((4, *before.shape))
        for gate in range(4):
            for h in range(before.shape[0]):
                mixed[gate, h] = before[h] @ params["R"][gate, h]
        write, keep = np.exp(i[t] + mixed[0]), sigmoid(f[t] + mixed[1])
        cell = keep * cell + write * np.tanh(z[t] + mixed[2])
        normaliser = keep * normaliser + write
        before = out[t] = sigmoid(o[t] + mixed[3]) * cell / normaliser
    return {"y": out}


def slstm_example(rng: np.random.Generator, T: int) -> Example:
    shape, D = (T, 2, 3), 3
    inputs = draws(rng, i=shape, f=shape, z=shape, o=shape)
    return inputs, {"R": rng.standard_normal((4, 2, D, D)) / np.sqrt(D)}, {}


def SLSTM(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    gates = {name: linear(inputs["x"], params, name) for name in "ifzo"}
    s = slstm(gates, {"R": params["s.R"]}, {})["y"]
    return {"y": linear(layer_norm(s), params, "y", 2)}


def SLSTM_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 6, 2, 3
    params = weights(rng, i=(C, H, D), f=(C, H, D), z=(C, H, D), o=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    params |= {f"{name}.bias": rng.standard_normal((H, D)) for name in "ifzo"}
    params["s.R"] = rng.standard_normal((4, H, D, D)) / np.sqrt(D)
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}
