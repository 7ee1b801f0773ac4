"""Graph attention, node by node over its neighbours; the same edge by edge; and PairingNet's layer."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, layer_norm, linear, softmax, weights


def leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.2 * x)


def heard(z: Array, sources: list[list[int]], a_src: Array, a_dst: Array) -> Array:
    """`sources[n]` lists the nodes that node n hears, each as often as there are edges."""
    y = np.zeros_like(z)
    for n, own in enumerate(sources):
        for h in range(z.shape[1] if own else 0):
            p = softmax(leaky(np.array([a_dst[h] @ z[n, h] + a_src[h] @ z[m, h] for m in own])))
            y[n, h] = p @ z[own, h]
    return y


def neighbours(adj: Array) -> list[list[int]]:
    return [[m for m in range(len(adj)) if adj[n, m] or m == n] for n in range(len(adj))]


def gat(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": heard(inputs["z"], neighbours(inputs["adj"]), inputs["a_src"], inputs["a_dst"])}


def gat_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, z=(T, 2, 3), a_src=(2, 3), a_dst=(2, 3)) | {"adj": rng.random((T, T)) < 0.4}, {}, {}


def gat_edges(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    edges = list(zip(inputs["src"], inputs["dst"], strict=True))
    sources = [[int(s) for s, d in edges if d == n] for n in range(len(inputs["z"]))]
    return {"y": heard(inputs["z"], sources, inputs["a_src"], inputs["a_dst"])}


def gat_edges_example(rng: np.random.Generator, T: int) -> Example:
    loops = np.arange(T)
    edges = {name: np.concatenate([loops, rng.integers(0, T, 2 * T)]) for name in ("src", "dst")}
    return draws(rng, z=(T, 2, 3), a_src=(2, 3), a_dst=(2, 3)) | edges, {}, {}


def GraphAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    z = linear(np.maximum(layer_norm(x), 0), params, "z")
    g = heard(z, neighbours(inputs["adj"]), params["a_src"], params["a_dst"])
    return {"y": x + g.mean(axis=1) + params["b"]}


def GraphAttention_example(rng: np.random.Generator, T: int) -> Example:
    C, H = 4, 2
    params = weights(rng, z=(C, H, C)) | draws(rng, a_src=(H, C), a_dst=(H, C), b=(C,))
    return draws(rng, x=(T, C)) | {"adj": rng.random((T, T)) < 0.4}, params, {"H": H}
