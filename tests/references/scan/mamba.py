"""Selective scan: zero-order hold for A, an Euler step for B; and the layer around it."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, causal_filter, draws, linear, silu, softplus, weights


def selective_scan(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, dt, A, B, C, skip = (inputs[name] for name in ("x", "dt", "A", "B", "C", "skip"))
    T, D = x.shape
    y = np.zeros((T, D))
    for d in range(D):
        state = np.zeros(A.shape[1])
        for t in range(T):
            state = np.exp(dt[t, d] * A[d]) * state + dt[t, d] * B[t] * x[t, d]
            y[t, d] = C[t] @ state + skip[d] * x[t, d]
    return {"y": y}


def selective_scan_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, x=(T, 5), dt=(T, 5), A=(5, 3), B=(T, 3), C=(T, 3), skip=(5,))
    inputs["dt"] = softplus(inputs["dt"])
    inputs["A"] = -np.exp(0.3 * inputs["A"])
    return inputs, {}, {}


def Mamba(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u = inputs["u"]
    x = silu(params["b"] + causal_filter(linear(u, params, "xin"), params["w"]))
    dt = softplus(linear(linear(x, params, "low"), params, "dt") + params["dt_bias"])
    scanned = {"x": x, "dt": dt, "A": -np.exp(params["A_log"]), "skip": params["skip"]}
    scanned |= {"B": linear(x, params, "B"), "C": linear(x, params, "C")}
    y = selective_scan(scanned, {}, {})["y"]
    return {"out": linear(y * silu(linear(u, params, "z")), params, "out")}


def Mamba_example(rng: np.random.Generator, T: int) -> Example:
    C, N, D, R, W = 4, 3, 7, 2, 3
    params = weights(rng, xin=(C, D), z=(C, D), low=(D, R), B=(D, N), C=(D, N), dt=(R, D), out=(D, C))
    params |= draws(rng, w=(W, D), b=(D,), A_log=(D, N), dt_bias=(D,), skip=(D,))
    return draws(rng, u=(T, C)), params, {"N": N, "D": D, "R": R, "W": W}
