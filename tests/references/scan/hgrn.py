"""HGRN and HGRN2: the input gate is one minus the forget gate."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, rms_norm, sigmoid, silu, weights


def hgrn(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, f, g = (inputs[name] for name in ("x", "f", "g"))
    o = np.zeros_like(x)
    state = np.zeros(x.shape[1])
    for t in range(len(x)):
        state = f[t] * state + (1 - f[t]) * x[t]
        o[t] = g[t] * state
    return {"o": o}


def hgrn_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, x=(T, 5), g=(T, 5))
    return inputs | {"f": rng.uniform(0.05, 0.95, (T, 5))}, {}, {}


def hgrn_complex(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """In real numbers: the state (re, im) is turned by theta."""
    a, b, f, theta = (inputs[name] for name in ("a", "b", "f", "theta"))
    x, y = np.zeros_like(a), np.zeros_like(a)
    re, im = np.zeros(a.shape[1]), np.zeros(a.shape[1])
    for t in range(len(a)):
        turned = np.cos(theta) * re - np.sin(theta) * im, np.sin(theta) * re + np.cos(theta) * im
        re = f[t] * turned[0] + (1 - f[t]) * a[t]
        im = f[t] * turned[1] + (1 - f[t]) * b[t]
        x[t], y[t] = re, im
    return {"x": x, "y": y}


def hgrn_complex_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, a=(T, 5), b=(T, 5), theta=(5,))
    return inputs | {"f": rng.uniform(0.05, 0.95, (T, 5))}, {}, {}


def hgrn2(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, f, v = (inputs[name] for name in ("q", "f", "v"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((D, v.shape[2]))
        for t in range(T):
            state = np.diag(f[t, h]) @ state + np.outer(1 - f[t, h], v[t, h])
            o[t, h] = state.T @ q[t, h]
    return {"o": o}


def hgrn2_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), v=(T, 3, 4))
    return inputs | {"f": rng.uniform(0.05, 0.95, (T, 3, 5))}, {}, {}


def HGRN(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, low = inputs["x"], params["low"]
    f = low + (1 - low) * sigmoid(linear(x, params, "f"))
    o = hgrn({"x": silu(linear(x, params, "u")), "f": f, "g": sigmoid(linear(x, params, "g"))}, {}, {})["o"]
    return {"y": linear(rms_norm(o), params, "y")}


def HGRN_example(rng: np.random.Generator, T: int) -> Example:
    C, N = 5, 7
    params = weights(rng, u=(C, N), f=(C, N), g=(C, N), y=(N, C)) | {"low": rng.uniform(0.1, 0.9, N)}
    params |= {"f.bias": rng.standard_normal(N), "g.bias": rng.standard_normal(N)}
    return draws(rng, x=(T, C)), params, {"N": N}


def HGRN2(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, low = inputs["x"], params["low"]
    f = low + (1 - low) * sigmoid(linear(x, params, "f"))
    o = hgrn2({"q": silu(linear(x, params, "q")), "f": f, "v": linear(x, params, "v")}, {}, {})["o"]
    return {"y": linear(rms_norm(o), params, "y", contracted=2)}


def HGRN2_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E = 7, 3, 5, 4
    params = weights(rng, q=(C, H, D), f=(C, H, D), v=(C, H, E)) | weights(rng, 2, y=(H, E, C))
    params["low"] = rng.uniform(0.1, 0.9, (H, D))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E}
