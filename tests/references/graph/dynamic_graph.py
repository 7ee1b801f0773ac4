"""Todyformer: messages inside patches of a stream of edges, attention of each node over the patches that touch it."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, layer_norm, linear, softmax, weights


def patch_messages(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, adj = inputs["x"], inputs["adj"]
    h, there = np.zeros((*adj.shape[:2], x.shape[1])), np.zeros(adj.shape[:2])
    for p in range(len(adj)):
        for n in range(len(x)):
            edges = adj[p, n].sum()
            h[p, n] = adj[p, n] @ x / max(edges, 1)
            there[p, n] = edges + adj[p, :, n].sum() > 0
    return {"h": h, "there": there}


def patch_messages_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 3)) | {"adj": rng.integers(0, 5, (4, T, T)) // 3 * 1.0}, {}, {}


def over_patches(q: Array, k: Array, v: Array, there: Array) -> Array:
    o = np.zeros((*q.shape[:3], v.shape[-1]))
    for p, n in np.argwhere(there):
        own = np.flatnonzero(there[:, n])
        for h in range(q.shape[2]):
            o[p, n, h] = softmax(k[own, n, h] @ q[p, n, h] / np.sqrt(q.shape[-1])) @ v[own, n, h]
    return o


def patch_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": over_patches(*(inputs[name] for name in ("q", "k", "v", "there")))}


def patch_attention_example(rng: np.random.Generator, T: int) -> Example:
    there = rng.random((T, 3)) < 0.6
    return draws(rng, q=(T, 3, 2, 3), k=(T, 3, 2, 3), v=(T, 3, 2, 4)) | {"there": there}, {}, {}


def DynamicGraph(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, src, dst, time = (inputs[name] for name in ("x", "src", "dst", "time"))
    P, freq = sizes["P"], params["freq"]
    size = max(-(-len(src) // P), 1)
    here, h, then = np.zeros((P, len(x)), bool), np.zeros((P, *x.shape)), np.zeros(P)
    h += linear(x, params, "h")
    for p in range(P):
        edges = np.arange(len(src))[p * size : (p + 1) * size]
        then[p] = time[edges].mean() if len(edges) else 0
        for n in range(len(x)):
            sent = [
                linear(x[src[a]], params, "sent")
                + linear(inputs["feature"][a], params, "sent_2")
                + linear(np.cos(freq * time[a]), params, "sent_3")
                for a in edges
                if dst[a] == n
            ]
            here[p, n] = any(n in (src[a], dst[a]) for a in edges)
            if sent:
                h[p, n] += np.mean(np.maximum(sent, 0), axis=0)
    z = layer_norm(h) + linear(np.cos(then[:, None] * freq), params, "z")[:, None]
    o = over_patches(linear(z, params, "q"), linear(z, params, "k"), linear(z, params, "v"), here)
    u = h + linear(o, params, "u", 2)
    t = u + linear(np.maximum(linear(layer_norm(u), params, "g"), 0), params, "t")
    return {"y": x + (here[:, :, None] * t).sum(axis=0) / np.maximum(here.sum(axis=0), 1)[:, None]}


def DynamicGraph_example(rng: np.random.Generator, T: int) -> Example:
    C, F, H, D, P, W, M, A = 4, 2, 2, 3, 3, 3, 5, 2 * T + 1
    params = weights(rng, h=(C, C), sent=(C, C), sent_2=(F, C), sent_3=(W, C), z=(W, C), g=(C, M), t=(M, C))
    params |= weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, u=(H, D, C))
    params |= draws(rng, freq=(W,), **{"sent.bias": (C,), "g.bias": (M,), "t.bias": (C,)})
    inputs = draws(rng, x=(T, C), feature=(A, F)) | {"time": np.sort(rng.random(A))}
    inputs |= {name: rng.integers(0, T, A) for name in ("src", "dst")}
    return inputs, params, {"H": H, "D": D, "P": P, "W": W, "M": M}
