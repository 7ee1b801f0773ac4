"""Retention: one constant decay for each head, 1 - 2^(-5 - h)."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, rms_norm, silu, weights


def retention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((D, v.shape[2]))
        for t in range(T):
            state = (1 - 2.0 ** (-5 - h)) * state + np.outer(k[t, h] * D**-0.5, v[t, h])
            o[t, h] = state.T @ q[t, h]
    return {"o": o}


def retention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)), {}, {}


def retention_quadratic(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for t in range(T):
        for s in range(t + 1):
            for h in range(H):
                o[t, h] += (1 - 2.0 ** (-5 - h)) ** (t - s) * (q[t, h] @ k[s, h]) * D**-0.5 * v[s, h]
    return {"o": o}


retention_quadratic_example = retention_example


def _rotate(x: np.ndarray) -> np.ndarray:
    """Turn features (2m, 2m+1) of token t by t * 10000^(-m / (pairs - 1)), as one complex number."""
    T, _, D = x.shape
    y = np.zeros_like(x)
    frequency = 10000.0 ** -np.linspace(0, 1, D // 2)
    for t in range(T):
        turned = (x[t, :, 0::2] + 1j * x[t, :, 1::2]) * np.exp(1j * t * frequency)
        y[t, :, 0::2], y[t, :, 1::2] = turned.real, turned.imag
    return y


def Retention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k = _rotate(linear(x, params, "a")), _rotate(linear(x, params, "b"))
    o = retention({"q": q, "k": k, "v": linear(x, params, "v")}, {}, {})["o"]
    gated = rms_norm(o) * silu(linear(x, params, "gate"))
    return {"y": linear(gated, params, "y", contracted=2)}


def Retention_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E = 9, 3, 6, 5
    params = weights(rng, a=(C, H, D), b=(C, H, D), v=(C, H, E), gate=(C, H, E)) | weights(rng, 2, y=(H, E, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E}
