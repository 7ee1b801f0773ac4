"""Diagonal state spaces: kernels written out, the softmax one normalised over the sequence."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, complex_draw, draws, gelu, linear, sigmoid, weights


def convolved(u: Array, kernel: Array) -> Array:
    y = np.zeros_like(u)
    for t in range(len(u)):
        for lag in range(t + 1):
            y[t] += kernel[lag] * u[t - lag]
    return y


def dss_softmax(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u, A, W, dt = (inputs[name] for name in ("u", "A", "W", "dt"))
    powers = np.exp(np.arange(len(u))[:, None, None] * dt[:, None] * A)
    return {"y": convolved(u, (W / A * powers / powers.sum(axis=0)).sum(axis=-1).real)}


def dss_softmax_example(rng: np.random.Generator, T: int) -> Example:
    c, n = 5, 3
    inputs = draws(rng, u=(T, c)) | {"A": -rng.uniform(0.1, 1, n) + 1j * rng.uniform(-4, 4, n)}
    return inputs | {"W": complex_draw(rng, c, n), "dt": rng.uniform(0.1, 0.5, c)}, {}, {}


def dss_conv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The integral of exp(A s) over each step is (exp(A dt) - 1) / A times what stands at its end."""
    u, A, W, dt = (inputs[name] for name in ("u", "A", "W", "dt"))
    step = dt[:, None] * A
    kernel = np.stack([(W * (np.exp((lag + 1) * step) - np.exp(lag * step)) / A).sum(axis=1).real for lag in range(len(u))])
    return {"y": convolved(u, kernel)}


dss_recurrent, dss_recurrent_example, dss_conv_example = dss_conv, dss_softmax_example, dss_softmax_example


def DSS(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    A = -np.exp(params["re_log"]) + 1j * params["omega"]
    system = {"u": inputs["x"], "A": A, "W": params["W"], "dt": np.exp(params["log_dt"])}
    z = gelu(dss_conv(system, {}, {})["y"] + params["D"] * inputs["x"])
    return {"out": linear(z, params, "out") * sigmoid(linear(z, params, "out_2"))}


def DSS_example(rng: np.random.Generator, T: int) -> Example:
    c, N = 5, 3
    params = weights(rng, out=(c, c), out_2=(c, c)) | draws(rng, D=(c,), **{"out.bias": (c,), "out_2.bias": (c,)})
    params |= {"log_dt": rng.uniform(np.log(0.01), np.log(0.3), c), "re_log": 0.3 * rng.standard_normal(N)}
    params |= {"omega": rng.uniform(0, 8, N), "W": complex_draw(rng, c, N)}
    return draws(rng, x=(T, c)), params, {"N": N}
