"""Titans' memory as a gate and as a layer: explicit softmax over one list of keys for each token."""

from __future__ import annotations

import numpy as np

from ..numerics import (
    Array,
    Example,
    Sizes,
    Tensors,
    causal_filter,
    draws,
    l2_norm,
    linear,
    rms_norm,
    sigmoid,
    silu,
    softmax,
    under,
    weights,
)
from .titans import titans


def Memory(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (silu(causal_filter(linear(x, params, f"x{name}"), params[f"w{name}"])) for name in ("q", "k", "v"))
    gates = {name: sigmoid(linear(x, params, name)) for name in ("alpha", "eta", "theta")}
    gates["theta"] = gates["theta"] / 2
    return titans({"q": l2_norm(q), "k": l2_norm(k), "v": v, **gates}, {}, {})


def memory_params(rng: np.random.Generator, C: int, H: int, D: int, E: int, W: int) -> Tensors:
    params = weights(rng, xq=(C, H, D), xk=(C, H, D), xv=(C, H, E), alpha=(C, H), eta=(C, H), theta=(C, H))
    return params | draws(rng, wq=(W, H, D), wk=(W, H, D), wv=(W, H, E))


def Memory_example(rng: np.random.Generator, T: int) -> Example:
    sizes = {"H": 2, "D": 3, "E": 4, "W": 3}
    return draws(rng, x=(T, 5)), memory_params(rng, 5, **sizes), sizes


def attended(q: Array, keys: Array, values: Array) -> Array:
    """One query against a list of keys."""
    return softmax(keys @ q / np.sqrt(len(q))) @ values


def Window(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (linear(inputs["x"], params, name) for name in ("q", "k", "v"))
    o = np.zeros_like(v)
    for t in range(len(q)):
        first = max(t - sizes["L"] + 1, 0)
        for h in range(q.shape[1]):
            keys = np.concatenate([params["pk"][:, h], k[first : t + 1, h]])
            o[t, h] = attended(q[t, h], keys, np.concatenate([params["pv"][:, h], v[first : t + 1, h]]))
    return {"o": o}


def window_params(rng: np.random.Generator, C: int, H: int, D: int, E: int, P: int) -> Tensors:
    return weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, E)) | draws(rng, pk=(P, H, D), pv=(P, H, E))


def Window_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 5)), window_params(rng, 5, 2, 3, 4, 2), {"H": 2, "D": 3, "E": 4, "L": 3, "P": 2}


def both(rng: np.random.Generator, C: int, H: int, D: int, P: int) -> Tensors:
    parts = {"a": window_params(rng, C, H, D, D, P), "m": memory_params(rng, C, H, D, D, 4)}
    return {f"{part}.{name}": value for part, params in parts.items() for name, value in params.items()}


def MAG(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    a = Window(inputs, under(params, "a"), sizes)["o"]
    m = Memory(inputs, under(params, "m"), {})["o"]
    gated = params["wa"] * rms_norm(a) * sigmoid(params["wm"] * rms_norm(m))
    return {"y": linear(gated, params, "y", contracted=2)}


def MAG_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, P = 5, 2, 3, 2
    params = both(rng, C, H, D, P) | weights(rng, 2, y=(H, D, C)) | draws(rng, wa=(H, D), wm=(H, D))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "L": 3, "P": P}


def MAL(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z = linear(Memory(inputs, under(params, "m"), {})["o"], params, "z", contracted=2)
    return {"y": linear(Window({"x": z}, under(params, "a"), sizes)["o"], params, "y", contracted=2)}


def MAL_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, P = 5, 2, 3, 2
    params = both(rng, C, H, D, P) | weights(rng, 2, z=(H, D, C), y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "L": 3, "P": P}
