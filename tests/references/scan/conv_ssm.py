"""State space models on images: convolutions on a torus by rolling, one step at a time; and the layer of ConvS5."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, complex_draw, draws, gelu


def rolled(x: Array, kernel: Array) -> Array:
    """Centred cross-correlation of an image with a kernel [a, b, in, out]."""
    total = 0
    for a in range(kernel.shape[0]):
        for b in range(kernel.shape[1]):
            moved = np.roll(x, (kernel.shape[0] // 2 - a, kernel.shape[1] // 2 - b), (0, 1))
            total = total + moved @ kernel[a, b]
    return total


def conv_s5(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u, B, lam, C = (inputs[name] for name in ("u", "B", "lam", "C"))
    state, y = np.zeros((*u.shape[1:3], len(lam)), complex), []
    for image in u:
        state = lam * state + rolled(image, B)
        y.append(2 * rolled(state, C).real)
    return {"y": np.stack(y)}


def conv_s5_example(rng: np.random.Generator, T: int) -> Example:
    c, n, o = 2, 3, 2
    inputs = draws(rng, u=(T, 4, 3, c)) | {"B": complex_draw(rng, 3, 2, c, n), "C": complex_draw(rng, 3, 2, n, o)}
    return inputs | {"lam": rng.uniform(0.3, 0.95, n) * np.exp(1j * rng.uniform(-3, 3, n))}, {}, {}


def conv_ssm(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u, A = inputs["u"], inputs["A"]
    diagonal = A[:, :, :, None] * np.eye(A.shape[2])
    state, x = np.zeros(u.shape[1:]), []
    for image in u:
        state = rolled(state, diagonal) + image
        x.append(state)
    return {"x": np.stack(x)}


def conv_ssm_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, u=(T, 4, 3, 2), A=(3, 3, 2))
    return inputs | {"A": 0.2 * inputs["A"]}, {}, {}


def ConvS5(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u = inputs["u"]
    lam = -np.exp(params["re_log"]) + 1j * params["omega"]
    step = np.exp(params["log_dt"])
    held = (np.exp(step * lam) - 1) / lam * params["B"]
    h = conv_s5({"u": u, "B": held, "lam": np.exp(step * lam), "C": params["C"]}, {}, {})["y"]
    h = h + np.stack([rolled(image, params["h.weight"]) for image in u])
    grouped = h.reshape(*h.shape[:3], sizes["G"], -1)
    centred = grouped - grouped.mean(axis=(1, 2, 4), keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=(1, 2, 4), keepdims=True) + 1e-6)
    return {"y": u + gelu(params["gain"] * normed.reshape(h.shape) + params["bias"])}


def ConvS5_example(rng: np.random.Generator, T: int) -> Example:
    c, N, K = 4, 3, 3
    params = draws(rng, gain=(c,), bias=(c,), **{"h.weight": (K, K, c, c)})
    params |= {"log_dt": rng.uniform(np.log(0.01), np.log(0.3), N), "re_log": 0.3 * rng.standard_normal(N)}
    params |= {"omega": rng.uniform(0, 8, N), "B": complex_draw(rng, K, K, c, N), "C": complex_draw(rng, K, K, N, c)}
    return draws(rng, u=(T, 4, 3, c)), params, {"N": N, "K": K, "G": 2}
