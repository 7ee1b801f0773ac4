"""MesaNet: the weighted least squares solution of the whole past, afresh at every token; and its layer."""

from __future__ import annotations

import numpy as np

from ..numerics import (
    Example,
    Sizes,
    Tensors,
    causal_filter,
    draws,
    l2_norm,
    linear,
    log_sigmoid,
    rms_norm,
    sigmoid,
    silu,
    softplus,
    weights,
)


def mesa(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """W minimises sum of w[s] |W^T k[s] - v[s]|^2 + |sqrt(ridge) W|^2, as one stacked system; o = W^T q."""
    q, k, v, beta, a, ridge = (inputs[name] for name in ("q", "k", "v", "beta", "a", "ridge"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        for t in range(T):
            weight = [beta[s, h] * np.exp(a[s + 1 : t + 1, h].sum()) for s in range(t + 1)]
            root = np.sqrt(np.array(weight))[:, None]
            rows = np.concatenate([root * k[: t + 1, h], np.diag(np.sqrt(ridge[h]))])
            targets = np.concatenate([root * v[: t + 1, h], np.zeros((D, v.shape[2]))])
            o[t, h] = np.linalg.lstsq(rows, targets, rcond=None)[0].T @ q[t, h]
    return {"o": o}


def mesa_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4))
    inputs |= {"k": l2_norm(inputs["k"]), "beta": rng.uniform(0.1, 1, (T, 3)), "a": -rng.uniform(0.01, 1, (T, 3))}
    return inputs | {"ridge": rng.uniform(0.5, 2, (3, 5))}, {}, {}


mesa_cg = mesa


def mesa_cg_example(rng: np.random.Generator, T: int) -> Example:
    return mesa_example(rng, T)[0], {}, {"N": 12}


def Mesa(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k = (silu(causal_filter(linear(x, params, f"x{name}"), params[f"w{name}"])) for name in ("q", "k"))
    mixed = {"q": l2_norm(q), "k": l2_norm(k), "v": linear(x, params, "v"), "beta": sigmoid(linear(x, params, "beta"))}
    mixed |= {"a": log_sigmoid(linear(x, params, "a")), "ridge": softplus(params["lam"]) + 0.25}
    return {"y": linear(rms_norm(mesa(mixed, {}, {})["o"]), params, "y", contracted=2)}


def Mesa_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, W = 7, 3, 4, 5, 3
    params = weights(rng, xq=(C, H, D), xk=(C, H, D), v=(C, H, E), beta=(C, H), a=(C, H)) | weights(rng, 2, y=(H, E, C))
    params |= draws(rng, wq=(W, H, D), wk=(W, H, D), lam=(H, D)) | {"a.bias": rng.standard_normal(H)}
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E, "W": W}
