"""Non-causal state space duality, as attention of every token to every token; and its layer on an image."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, layer_norm, linear, silu, softplus, weights


def vssd(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, dt, A, B, C, skip = (inputs[name] for name in ("x", "dt", "A", "B", "C", "skip"))
    per_group = x.shape[1] // B.shape[1]
    y = skip[:, None] * x
    for h in range(x.shape[1]):
        scores = C[:, h // per_group] @ B[:, h // per_group].T
        y[:, h] += scores @ (-dt[:, h : h + 1] * A[h] * x[:, h])
    return {"y": y}


def vssd_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, x=(T, 4, 3), B=(T, 2, 5), C=(T, 2, 5), skip=(4,))
    return inputs | {"dt": rng.uniform(0, 1, (T, 4)), "A": -rng.uniform(0.5, 2, 4)}, {}, {}


def filtered(x: Array, w: Array) -> Array:
    """Each channel with its own 3 x 3 filter, zeros around the image."""
    padded = np.pad(x, [(1, 1), (1, 1)] + [(0, 0)] * (x.ndim - 2))
    rows, columns = x.shape[:2]
    return sum(w[a, b] * padded[a : a + rows, b : b + columns] for a in range(3) for b in range(3))


def VSSD(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u = inputs["u"]
    rows, columns, _ = u.shape
    flat = {"dt": softplus(linear(u, params, "ud") + params["dt_bias"])}
    for name in ("x", "B", "C"):
        flat[name] = silu(params[f"b{name}"] + filtered(linear(u, params, f"u{name}"), params[f"w{name}"]))
    flat = {name: value.reshape(rows * columns, *value.shape[2:]) for name, value in flat.items()}
    y = vssd(flat | {"A": -np.exp(params["A_log"]), "skip": params["skip"]}, {}, {})["y"]
    normed = layer_norm(y.reshape(len(y), -1)).reshape(rows, columns, *y.shape[1:])
    gated = (params["norm"] * normed + params["norm_bias"]) * linear(u, params, "z")
    return {"out": linear(gated, params, "out", contracted=2)}


def VSSD_example(rng: np.random.Generator, T: int) -> Example:
    c, N, P, H, G = 4, 3, 2, 4, 2
    params = weights(rng, z=(c, H, P), ux=(c, H, P), uB=(c, G, N), uC=(c, G, N), ud=(c, H))
    params |= weights(rng, 2, out=(H, P, c)) | draws(rng, wx=(3, 3, H, P), bx=(H, P), wB=(3, 3, G, N), bB=(G, N))
    params |= draws(rng, wC=(3, 3, G, N), bC=(G, N), A_log=(H,), dt_bias=(H,), skip=(H,), norm=(H, P), norm_bias=(H, P))
    return draws(rng, u=(T, 3, c)), params, {"N": N, "P": P, "H": H, "G": G}
