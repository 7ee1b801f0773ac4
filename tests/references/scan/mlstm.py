"""xLSTM's matrix memory, stabilised and plain, and its layer."""

from __future__ import annotations

import numpy as np

from ..numerics import (
    Example,
    Sizes,
    Tensors,
    causal_filter,
    draws,
    layer_norm,
    linear,
    log_sigmoid,
    sigmoid,
    silu,
    weights,
)


def mlstm(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, i, f = (inputs[name] for name in ("q", "k", "v", "i", "f"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        memory, norm, m = np.zeros((D, v.shape[2])), np.zeros(D), -np.inf
        for t in range(T):
            log_f = log_sigmoid(f[t, h])
            largest = max(log_f + m, i[t, h])
            keep, take = np.exp(log_f + m - largest), np.exp(i[t, h] - largest)
            memory = keep * memory + take * np.outer(k[t, h] / np.sqrt(D), v[t, h])
            norm = keep * norm + take * k[t, h] / np.sqrt(D)
            m = largest
            o[t, h] = memory.T @ q[t, h] / max(abs(norm @ q[t, h]), np.exp(-m))
    return {"o": o}


def mlstm_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), i=(T, 3), f=(T, 3))
    inputs["f"] = inputs["f"] + 2
    return inputs, {}, {}


def mlstm_plain(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """As a sum over the past: the weight of s at t is the input gate at s times the forget gates after it."""
    q, k, v, i, f = (inputs[name] for name in ("q", "k", "v", "i", "f"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for t in range(T):
        for h in range(H):
            weight = np.zeros(t + 1)
            for s in range(t + 1):
                decay = np.prod(sigmoid(f[s + 1 : t + 1, h]))
                weight[s] = decay * np.exp(i[s, h]) * (q[t, h] @ k[s, h]) / np.sqrt(D)
            o[t, h] = weight @ v[: t + 1, h] / max(abs(weight.sum()), 1.0)
    return {"o": o}


mlstm_plain_example = mlstm_example


def MLSTM(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    a = linear(x, params, "a")
    s = silu(params["b"] + causal_filter(a, params["w"]))
    q, k = (np.einsum("the,hed->thd", s, params[f"{name}.weight"]) for name in ("q", "k"))
    v = np.einsum("the,hef->thf", a, params["v.weight"])
    gates = {}
    for name in ("i", "f"):
        parts = linear(q, params, name, 2), linear(k, params, f"{name}_2", 2), linear(v, params, f"{name}_3", 2)
        gates[name] = sum(parts) + params[f"b{name}"]
    o = mlstm({"q": q, "k": k, "v": v} | gates, {}, {})["o"]
    mixed = (layer_norm(o) + params["skip"] * s) * silu(linear(x, params, "gate"))
    return {"y": linear(mixed, params, "y", contracted=2)}


def MLSTM_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, W = 5, 3, 4, 6, 3
    params = weights(rng, a=(C, H, E), gate=(C, H, E))
    params |= weights(rng, 2, q=(H, E, D), k=(H, E, D), v=(H, E, E), y=(H, E, C))
    params |= weights(rng, 2, i=(H, D, H), i_2=(H, D, H), i_3=(H, E, H), f=(H, D, H), f_2=(H, D, H), f_3=(H, E, H))
    params |= draws(rng, w=(W, H, E), b=(H, E), bi=(H,), bf=(H,), skip=(H, E))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E, "W": W}
