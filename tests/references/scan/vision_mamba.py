"""Selective scans in both directions, each a loop over a list of tokens."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, causal_filter, draws, linear, silu, softplus, weights
from .mamba import selective_scan

NAMES = ("x", "dt", "B", "C")


def one_way(tokens: Tensors, A: Array, skip: Array) -> Array:
    return selective_scan(tokens | {"A": A, "skip": skip}, {}, {})["y"]


def both_ways(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    A, skip = inputs["A"], inputs["skip"]
    ahead = one_way({name: inputs[name][0] for name in NAMES}, A[0], skip[0])
    back = one_way({name: inputs[name][1][::-1] for name in NAMES}, A[1], skip[1])[::-1]
    return {"y": ahead + back}


def both_ways_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, x=(2, T, 4), dt=(2, T, 4), A=(2, 4, 3), B=(2, T, 3), C=(2, T, 3), skip=(2, 4))
    return inputs | {"dt": softplus(inputs["dt"]), "A": -np.exp(0.3 * inputs["A"])}, {}, {}


scan_and_flip, scan_and_flip_example = both_ways, both_ways_example


def Vim(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u, parts = inputs["u"], []
    xin, z = linear(u, params, "xin"), linear(u, params, "z")
    ahead = causal_filter(xin, params["w"][0])
    back = causal_filter(xin[::-1], params["w"][1])[::-1]
    for r, filtered in enumerate((ahead, back)):
        own = {name: params[f"{name}.weight"][r] for name in ("low", "B", "C", "dt")}
        x = silu(params["b"][r] + filtered)
        dt = softplus(x @ own["low"] @ own["dt"] + params["dt_bias"][r])
        parts.append({"x": x, "dt": dt, "B": x @ own["B"], "C": x @ own["C"]})
    scanned = {name: np.stack([part[name] for part in parts]) for name in NAMES}
    y = both_ways(scanned | {"A": -np.exp(params["A_log"]), "skip": params["skip"]}, {}, {})["y"]
    return {"out": linear(y * silu(z), params, "out")}


def Vim_example(rng: np.random.Generator, T: int) -> Example:
    C, N, D, R, W = 4, 3, 5, 2, 3
    params = weights(rng, xin=(C, D), z=(C, D), out=(D, C))
    params |= draws(rng, w=(2, W, D), b=(2, D), A_log=(2, D, N), dt_bias=(2, D), skip=(2, D))
    shapes = {"low": (2, D, R), "B": (2, D, N), "C": (2, D, N), "dt": (2, R, D)}
    params |= {f"{name}.weight": 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}
    return draws(rng, u=(T, C)), params, {"N": N, "D": D, "R": R, "W": W}
