"""S4D: one diagonal complex system for each channel, zero-order hold, half of the conjugate pairs stored."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, complex_draw, draws, gelu, linear, sigmoid, under, weights


def s4d(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u, C = inputs["u"], params["C"]
    y = np.zeros_like(u)
    for c in range(u.shape[1]):
        A = -np.exp(params["re_log"][c]) + 1j * params["omega"][c]
        step = np.exp(params["log_dt"][c])
        state = np.zeros(A.shape, complex)
        for t in range(len(u)):
            state = np.exp(step * A) * state + (np.exp(step * A) - 1) / A * u[t, c]
            y[t, c] = 2 * (C[c] @ state).real + params["D"][c] * u[t, c]
    return {"y": y}


def s4d_example(rng: np.random.Generator, T: int) -> Example:
    c, N = 5, 6
    params = {"log_dt": rng.uniform(np.log(0.01), np.log(0.3), c), "re_log": 0.3 * rng.standard_normal((c, N // 2))}
    params |= {"omega": rng.uniform(0, 8, (c, N // 2)), "C": complex_draw(rng, c, N // 2), "D": rng.standard_normal(c)}
    return draws(rng, u=(T, c)), params, {"N": N}


def s4d_conv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u, a, b, C = (inputs[name] for name in ("u", "a", "b", "C"))
    y = np.zeros_like(u)
    for t in range(len(u)):
        for lag in range(t + 1):
            y[t] += 2 * (C * b * a**lag).sum(axis=1).real * u[t - lag]
    return {"y": y}


def s4d_conv_example(rng: np.random.Generator, T: int) -> Example:
    c, n = 5, 3
    a = rng.uniform(0.3, 0.98, (c, n)) * np.exp(1j * rng.uniform(-3, 3, (c, n)))
    inputs = draws(rng, u=(T, c)) | {"a": a, "b": complex_draw(rng, c, n), "C": complex_draw(rng, c, n)}
    return inputs, {}, {}


def S4D(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z = gelu(s4d({"u": inputs["x"]}, under(params, "y"), sizes)["y"])
    return {"out": linear(z, params, "out") * sigmoid(linear(z, params, "out_2"))}


def S4D_example(rng: np.random.Generator, T: int) -> Example:
    inputs, system, sizes = s4d_example(rng, T)
    params = {f"y.{name}": value for name, value in system.items()}
    params |= weights(rng, out=(5, 5), out_2=(5, 5))
    params |= {"out.bias": rng.standard_normal(5), "out_2.bias": rng.standard_normal(5)}
    return {"x": inputs["u"]}, params, sizes
