"""Mamba-2: S = exp(dt A) S + B (dt x)^T, y = S^T C; B and C are shared by the heads of a group."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, causal_filter, draws, linear, rms_norm, silu, softplus, weights


def ssd(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, dt, A, B, C = (inputs[name] for name in ("x", "dt", "A", "B", "C"))
    T, H, P = x.shape
    G, N = B.shape[1:]
    y = np.zeros((T, H, P))
    for h in range(H):
        g = h // (H // G)
        state = np.zeros((N, P))
        for t in range(T):
            state = np.exp(dt[t, h] * A[h]) * state + np.outer(B[t, g], dt[t, h] * x[t, h])
            y[t, h] = state.T @ C[t, g]
    return {"y": y}


def ssd_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, x=(T, 6, 3), dt=(T, 6), A=(6,), B=(T, 2, 5), C=(T, 2, 5))
    inputs["dt"] = softplus(inputs["dt"])
    inputs["A"] = -np.exp(0.3 * inputs["A"])
    return inputs, {}, {}


def Mamba2(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u = inputs["u"]
    dt = softplus(linear(u, params, "dt") + params["dt_bias"])
    mixed = {}
    for name in ("x", "B", "C"):
        mixed[name] = silu(params[f"b{name}"] + causal_filter(linear(u, params, f"u{name}"), params[f"w{name}"]))
    y = ssd(mixed | {"dt": dt, "A": -np.exp(params["A_log"])}, {}, {})["y"]
    gated = (y + params["skip"][:, None] * mixed["x"]) * silu(linear(u, params, "z"))
    return {"out": linear(params["norm"] * rms_norm(gated, axes=2), params, "out", contracted=2)}


def Mamba2_example(rng: np.random.Generator, T: int) -> Example:
    C, H, P, G, N, W = 5, 4, 3, 2, 7, 3
    params = weights(rng, z=(C, H, P), ux=(C, H, P), uB=(C, G, N), uC=(C, G, N), dt=(C, H))
    params |= weights(rng, 2, out=(H, P, C))
    params |= draws(rng, wx=(W, H, P), bx=(H, P), wB=(W, G, N), bB=(G, N), wC=(W, G, N), bC=(G, N))
    params |= draws(rng, A_log=(H,), dt_bias=(H,), skip=(H,), norm=(H, P))
    return draws(rng, u=(T, C)), params, {"N": N, "P": P, "H": H, "G": G, "W": W}
