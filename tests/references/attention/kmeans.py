"""Clusters collect the values of the pixels that are nearest to them."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, gelu, l2_norm, linear, softmax, weights


def kmeans(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, x, v = (inputs[name] for name in ("q", "x", "v"))
    y, Z = np.zeros((len(q), v.shape[1])), np.zeros((len(x), len(q)))
    for n in range(len(x)):
        nearest = max(range(len(q)), key=lambda cluster: q[cluster] @ l2_norm(x[n]))
        y[nearest] += v[n]
        Z[n, nearest] = 1
    return {"y": y, "Z": Z}


def kmeans_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(4, 5), x=(T, 5), v=(T, 3)), {}, {}


def KMeans(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, pixels = inputs["q"], gelu(linear(gelu(inputs["x"]), params, "pix"))
    own = gelu(linear(gelu(q), params, "own"))
    clusters = {"q": linear(own, params, "w"), "x": linear(pixels, params, "f"), "v": linear(pixels, params, "v")}
    u = q + linear(kmeans(clusters, {}, {})["y"], params, "u")
    qa, ka, va = (linear(own, params, name) for name in ("qa", "ka", "va"))
    met = np.zeros(va.shape)
    for cluster in range(len(q)):
        for h in range(qa.shape[1]):
            met[cluster, h] = softmax(ka[:, h] @ qa[cluster, h]) @ va[:, h]
    z = gelu(u + linear(gelu(met), params, "z", contracted=2))
    return {"y": gelu(z + linear(gelu(linear(z, params, "hidden")), params, "y"))}


def KMeans_example(rng: np.random.Generator, T: int) -> Example:
    C, B, E, H, D, V, F = 6, 4, 5, 2, 3, 4, 7
    params = weights(rng, pix=(B, C), own=(C, C), v=(C, E), f=(C, E), w=(C, E), u=(E, C), hidden=(C, F), y=(F, C))
    params |= weights(rng, qa=(C, H, D), ka=(C, H, D), va=(C, H, V)) | weights(rng, 2, z=(H, V, C))
    return draws(rng, q=(4, C), x=(T, B)), params, {"E": E, "H": H, "D": D, "V": V, "F": F}
