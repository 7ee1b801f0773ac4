"""LightNet: a softmax over time for each key feature; and its two positional encodings on a grid."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, rms_norm, sigmoid, silu, softmax, weights


def lightnet(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state, z = np.zeros((D, v.shape[2])), np.full(D, -np.inf)
        for t in range(T):
            grown = np.logaddexp(z, k[t, h])
            state = np.exp(z - grown)[:, None] * state + np.outer(np.exp(k[t, h] - grown), v[t, h])
            z = grown
            o[t, h] = state.T @ q[t, h]
    return {"o": o}


def lightnet_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)), {}, {}


def lightnet_full(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    p = softmax(k, axis=0)
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for t in range(len(q)):
        for s in range(len(k)):
            o[t] += (q[t] * p[s]).sum(axis=-1, keepdims=True) * v[s]
    return {"o": o}


lightnet_full_example = lightnet_example


def tpe_grid(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The sums along each axis, with decay^distance for weights."""
    x, q, k, p = (inputs[name] for name in ("x", "q", "k", "p"))
    y = np.zeros_like(x)
    weight, decay = (q * k).sum(axis=-1)[:, :, None], sigmoid(p)[:, :, None]
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            for s in range(i + 1):
                y[i, j] += weight[0] * decay[0] ** (i - s) * x[s, j]
            for s in range(j + 1):
                y[i, j] += weight[1] * decay[1] ** (j - s) * x[i, s]
    return {"y": y}


def tpe_grid_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4, 3, 5), q=(2, 3, 5), k=(2, 3, 5), p=(2, 3)), {}, {}


def lrpe_grid(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """Each half of the features is turned by one coordinate, pair by pair, as complex numbers."""
    x = inputs["x"]
    I, J, _, D = x.shape
    half = D // 2
    frequency = 10000.0 ** (-np.arange(0, half, 2) / half)
    y = np.zeros_like(x)
    for i in range(I):
        for j in range(J):
            for start, position in ((0, i), (half, j)):
                part = x[i, j, :, start : start + half]
                turned = (part[:, 0::2] + 1j * part[:, 1::2]) * np.exp(1j * position * frequency)
                y[i, j, :, start : start + half : 2] = turned.real
                y[i, j, :, start + 1 : start + half : 2] = turned.imag
    return {"y": y}


def lrpe_grid_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 3, 3, 12)), {}, {}


def LightNet(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = silu(linear(x, params, "q")), linear(x, params, "k"), linear(x, params, "v")
    gate = silu(linear(linear(x, params, "low"), params, "gate"))
    o = lightnet({"q": q, "k": k, "v": v}, {}, {})["o"]
    return {"y": linear(rms_norm(o, axes=2) * gate, params, "y", contracted=2)}


def LightNet_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, R = 7, 3, 5, 4, 2
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, E), low=(C, R), gate=(R, H, E))
    return draws(rng, x=(T, C)), params | weights(rng, 2, y=(H, E, C)), {"H": H, "D": D, "E": E, "R": R}
