"""RWKV-7 and the general rule: one transition matrix for each token, a diagonal and a matrix of rank one."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, l2_norm, layer_norm, linear, sigmoid, under, weights


def dplr(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, p, b, w = (inputs[name] for name in ("q", "k", "v", "p", "b", "w"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((D, v.shape[2]))
        for t in range(T):
            transition = np.diag(np.exp(w[t, h])) + np.outer(b[t, h], p[t, h])
            state = transition @ state + np.outer(k[t, h], v[t, h])
            o[t, h] = state.T @ q[t, h]
    return {"o": o}


def dplr_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), p=(T, 3, 5), b=(T, 3, 5))
    inputs |= {"p": l2_norm(inputs["p"]), "b": l2_norm(inputs["b"]), "w": -rng.uniform(0.1, 1.0, (T, 3, 5))}
    return inputs, {}, {}


def rwkv7(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """As published, the transpose: S = S (diag(w) - kk (a kk)^T) + v k^T, o = S r."""
    r, w, k, v, kk, a = (inputs[name] for name in ("r", "w", "k", "v", "kk", "a"))
    T, H, D = r.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        state = np.zeros((v.shape[2], D))
        for t in range(T):
            transition = np.diag(np.exp(w[t, h])) - np.outer(kk[t, h], a[t, h] * kk[t, h])
            state = state @ transition + np.outer(v[t, h], k[t, h])
            o[t, h] = state @ r[t, h]
    return {"o": o}


def rwkv7_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, r=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4), kk=(T, 3, 5))
    inputs |= {"kk": l2_norm(inputs["kk"]), "a": rng.uniform(0, 1, (T, 3, 5)), "w": -rng.uniform(0.1, 0.6, (T, 3, 5))}
    return inputs, {}, {}


def Mix7(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    xr, xw, xk, _, xa, xg = np.moveaxis(inputs["z"], 1, 0)
    v, r, key = inputs["v"], linear(xr, params, "r"), linear(xk, params, "key")
    w = -np.exp(-0.5) * sigmoid(params["w0"] + linear(np.tanh(linear(xw, params, "lw")), params, "w"))
    a = sigmoid(params["a0"] + linear(linear(xa, params, "la"), params, "a"))
    g = linear(sigmoid(linear(xg, params, "lg")), params, "g")
    k = key * (1 + (a - 1) * params["k_scale"])
    kk = l2_norm(key * params["kk_scale"])
    o = rwkv7({"r": r, "w": w, "k": k, "v": v, "kk": kk, "a": a}, {}, {})["o"]
    normed = params["norm"] * layer_norm(o, eps=64e-5) + params["norm_bias"]
    bonus = (r * k * params["bonus"]).sum(axis=-1, keepdims=True) * v
    return {"y": linear(g * (normed + bonus), params, "y", contracted=2)}


def mix_params(rng: np.random.Generator, C: int, H: int, D: int, E: int, RW: int, RA: int, RG: int) -> Tensors:
    params = weights(rng, r=(C, H, D), key=(C, H, D), lw=(C, RW), w=(RW, H, D), la=(C, RA), a=(RA, H, D))
    params |= weights(rng, lg=(C, RG), g=(RG, H, E)) | weights(rng, 2, y=(H, E, C))
    params |= draws(rng, w0=(H, D), a0=(H, D), kk_scale=(H, D), k_scale=(H, D), bonus=(H, D))
    return params | draws(rng, norm=(H, E), norm_bias=(H, E))


def Mix7_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E = 7, 3, 5, 4
    ranks = {"RW": 2, "RA": 3, "RG": 2}
    return draws(rng, z=(T, 6, C), v=(T, H, E)), mix_params(rng, C, H, D, E, **ranks), {"D": D, **ranks}


def shifted(x: Array, mu: Array) -> Array:
    """[t, p, c]: six mixes of each token with the one before."""
    before = np.concatenate([np.zeros_like(x[:1]), x[:-1]])
    return np.stack([x + (before - x) * row for row in mu], axis=1)


def RWKV7First(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z = shifted(inputs["x"], params["mu"])
    v = linear(z[:, 3], params, "v")
    return {"y": Mix7({"z": z, "v": v}, under(params, "y"), sizes)["y"], "v": v}


def RWKV7First_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 7, 3, 4
    params = weights(rng, v=(C, H, D)) | draws(rng, mu=(6, C))
    params |= {f"y.{name}": value for name, value in mix_params(rng, C, H, D, D, 64, 64, 128).items()}
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}


def RWKV7(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z = shifted(inputs["x"], params["mu"])
    value = linear(z[:, 3], params, "value")
    mixed = sigmoid(params["v0"] + linear(linear(z[:, 3], params, "lv"), params, "v"))
    v = mixed * inputs["first"] + (1 - mixed) * value
    return Mix7({"z": z, "v": v}, under(params, "y"), sizes)


def RWKV7_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, RV = 7, 3, 5, 4, 2
    params = weights(rng, value=(C, H, E), lv=(C, RV), v=(RV, H, E)) | draws(rng, mu=(6, C), v0=(H, E))
    params |= {f"y.{name}": value for name, value in mix_params(rng, C, H, D, E, 64, 64, 128).items()}
    return draws(rng, x=(T, C), first=(T, H, E)), params, {"D": D, "RV": RV}
