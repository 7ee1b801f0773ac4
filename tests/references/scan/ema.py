"""Exponential moving averages, and the damped one in n dimensions."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, sigmoid, silu


def ema(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, a = inputs["x"], inputs["a"]
    y = np.zeros_like(x)
    state = np.zeros(x.shape[1])
    for t in range(len(x)):
        state = state + a * (x[t] - state)
        y[t] = state
    return {"y": y}


def ema_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 5)) | {"a": rng.uniform(0.05, 0.95, 5)}, {}, {}


def ema_corrected(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The average divided by the weights that it has given out so far."""
    x, a = inputs["x"], inputs["a"]
    y = np.zeros_like(x)
    state, given = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for t in range(len(x)):
        state = (1 - a) * state + a * x[t]
        given = (1 - a) * given + a
        y[t] = state / given
    return {"y": y}


ema_corrected_example = ema_example


def ema_damped(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, alpha, delta, beta, eta = (inputs[name] for name in ("x", "alpha", "delta", "beta", "eta"))
    y = np.zeros_like(x)
    for c in range(x.shape[1]):
        state = np.zeros(alpha.shape[1])
        for t in range(len(x)):
            state = alpha[c] * (beta[c] * x[t, c]) + (1 - alpha[c] * delta[c]) * state
            y[t, c] = eta[c] @ state
    return {"y": y}


def ema_damped_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, x=(T, 5), beta=(5, 3), eta=(5, 3))
    return inputs | {"alpha": rng.uniform(0.1, 0.9, (5, 3)), "delta": rng.uniform(0.1, 0.9, (5, 3))}, {}, {}


def ema_damped_conv(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, alpha, delta, beta, eta = (inputs[name] for name in ("x", "alpha", "delta", "beta", "eta"))
    y = np.zeros_like(x)
    for t in range(len(x)):
        for s in range(t + 1):
            y[t] += (eta * alpha * beta * (1 - alpha * delta) ** (t - s)).sum(axis=1) * x[s]
    return {"y": y}


ema_damped_conv_example = ema_damped_example


def ema_both(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """Two kernels: the first looks back, the second ahead; both hold the token itself, at lag 0."""
    x, alpha, delta, beta, eta = (inputs[name] for name in ("x", "alpha", "delta", "beta", "eta"))
    y = np.zeros_like(x)
    kernel = [
        [(eta[r] * alpha[r] * beta[r] * (1 - alpha[r] * delta[r]) ** lag).sum(axis=1) for lag in range(len(x))]
        for r in range(2)
    ]
    for t in range(len(x)):
        y[t] = (kernel[0][0] + kernel[1][0]) * x[t]
        for s in range(len(x)):
            if s != t:
                y[t] += kernel[int(s > t)][abs(t - s)] * x[s]
    return {"y": y}


def ema_both_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, x=(T, 5), beta=(2, 5, 3), eta=(2, 5, 3))
    return inputs | {"alpha": rng.uniform(0.1, 0.9, (2, 5, 3)), "delta": rng.uniform(0.1, 0.9, (2, 5, 3))}, {}, {}


def DampedEMA(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """In the published code's names: p = sigmoid(delta) feeds, 1 - p * sigmoid(alpha) keeps."""
    p, eta = sigmoid(params["delta"]), params["gamma"] * params["gamma"].shape[1] ** -0.5
    system = {"alpha": p, "delta": sigmoid(params["alpha"]), "beta": params["beta"], "eta": eta}
    return {"y": silu(ema_damped(inputs | system, {}, {})["y"] + params["omega"] * inputs["x"])}


def DampedEMA_example(rng: np.random.Generator, T: int) -> Example:
    params = draws(rng, alpha=(5, 3), delta=(5, 3), beta=(5, 3), gamma=(5, 3), omega=(5,))
    return draws(rng, x=(T, 5)), params, {"N": 3}
