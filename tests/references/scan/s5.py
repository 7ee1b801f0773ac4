"""S5: one diagonal complex system with many inputs and outputs, zero-order hold."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, complex_draw, draws, gelu, linear, sigmoid, weights


def s5(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u, A, B, C, D, dt = (inputs[name] for name in ("u", "A", "B", "C", "D", "dt"))
    y = np.zeros_like(u)
    step = np.diag(np.exp(dt * A))
    push = np.diag(1 / A) @ (step - np.eye(len(A))) @ B
    state = np.zeros(len(A), complex)
    for t in range(len(u)):
        state = step @ state + push @ u[t]
        y[t] = 2 * (C @ state).real + D * u[t]
    return {"y": y}


def s5_example(rng: np.random.Generator, T: int) -> Example:
    c, n = 4, 3
    inputs = draws(rng, u=(T, c), D=(c,)) | {"B": complex_draw(rng, n, c), "C": complex_draw(rng, c, n)}
    inputs["A"] = -rng.uniform(0.2, 1, n) + 1j * rng.uniform(0, 8, n)
    return inputs | {"dt": rng.uniform(0.01, 0.3, n)}, {}, {}


def s5_conv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u, a, b, C = (inputs[name] for name in ("u", "a", "b", "C"))
    y = np.zeros_like(u)
    for t in range(len(u)):
        for lag in range(t + 1):
            y[t] += 2 * (C @ np.diag(a**lag) @ b).real @ u[t - lag]
    return {"y": y}


def s5_conv_example(rng: np.random.Generator, T: int) -> Example:
    c, n = 4, 3
    a = rng.uniform(0.3, 0.98, n) * np.exp(1j * rng.uniform(-3, 3, n))
    inputs = draws(rng, u=(T, c)) | {"a": a, "b": complex_draw(rng, n, c), "C": complex_draw(rng, c, n)}
    return inputs, {}, {}


def S5(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    system = {name: params[name] for name in ("B", "C", "D")}
    system |= {"A": -np.exp(params["re_log"]) + 1j * params["omega"], "dt": np.exp(params["log_dt"])}
    z = gelu(s5({"u": inputs["x"]} | system, {}, {})["y"])
    return {"out": linear(z, params, "out") * sigmoid(linear(z, params, "out_2"))}


def S5_example(rng: np.random.Generator, T: int) -> Example:
    c, N = 4, 6
    n = N // 2
    params = {"log_dt": rng.uniform(np.log(0.01), np.log(0.3), n), "re_log": 0.3 * rng.standard_normal(n)}
    params |= {"omega": rng.uniform(0, 8, n), "B": complex_draw(rng, n, c), "C": complex_draw(rng, c, n)}
    params |= weights(rng, out=(c, c), out_2=(c, c)) | {"D": rng.standard_normal(c)}
    params |= {"out.bias": rng.standard_normal(c), "out_2.bias": rng.standard_normal(c)}
    return draws(rng, x=(T, c)), params, {"N": N}
