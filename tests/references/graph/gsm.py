"""GSM++: clusters as sets, merged round by round along picked edges; and the hybrid layer in that order."""

from __future__ import annotations

import numpy as np

from ..attention.softmax import MultiHeadAttention
from ..numerics import Array, Example, Sizes, Tensors, draws, linear, rms_norm, sigmoid, under, weights
from ..scan.mamba import Mamba, Mamba_example

Cluster = frozenset[int]


def merged(clusters: list[Cluster], s: Array) -> list[Cluster]:
    """Each cluster picks its best edge out; what picks connect becomes one."""
    parent = {c: c for c in clusters}

    def root(c: Cluster) -> Cluster:
        return c if parent[c] == c else root(parent[c])

    for c in clusters:
        others = [o for o in clusters if o != c]
        if others:
            best = max(others, key=lambda o: max(s[a, b] for a in c for b in o))
            parent[root(c)] = root(best)
    groups: dict[Cluster, Cluster] = {}
    for c in clusters:
        groups[root(c)] = groups.get(root(c), frozenset()) | c
    return list(groups.values())


def places(sim: Array, L: int) -> Array:
    """Where each node stands when the tree of clusters is walked, that of the first node first."""
    s, clusters = sim + sim.T, [frozenset([n]) for n in range(len(sim))]
    paths: list[list[int]] = [[n] for n in range(len(sim))]
    for _ in range(L):
        clusters = merged(clusters, s)
        for c in clusters:
            for n in c:
                paths[n].insert(0, min(c))
    pos = np.zeros(len(sim))
    pos[sorted(range(len(sim)), key=lambda n: paths[n])] = np.arange(len(sim))
    return pos


def cluster_order(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"pos": places(inputs["sim"], sizes["L"])}


def cluster_order_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, sim=(T, T)), {}, {"L": 2, "J": 6}


def reordered(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": inputs["x"]}


def reordered_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 3), sim=(T, T)), {}, {"L": 2, "J": 6}


def GSM(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, adj, pos = inputs["x"], inputs["adj"], inputs["pos"]
    a, b, v = (linear(x, params, name) for name in "abv")
    g = linear(x, params, "g")
    for n in range(len(x)):
        for m in np.flatnonzero(adj[n]):
            g[n] += sigmoid(a[n] + b[m]) * v[m]
    g = x + np.maximum(g, 0)
    order = np.argsort(pos)
    z = g[order]
    q = z + Mamba({"u": rms_norm(z)}, under(params, "r"), sizes)["out"]
    seen = MultiHeadAttention({"x": rms_norm(q)}, under(params, "p"), {"H": sizes["H"]})["y"]
    return {"y": (q + seen)[pos]}


def GSM_example(rng: np.random.Generator, T: int) -> Example:
    C, H = 4, 2
    _, inner, sizes = Mamba_example(rng, T)
    params = weights(rng, a=(C, C), b=(C, C), v=(C, C), g=(C, C)) | draws(rng, **{"g.bias": (C,)})
    params |= {f"r.{name}": value for name, value in inner.items()}
    heads = weights(rng, q=(C, H, 2), k=(C, H, 2), v=(C, H, 2)) | weights(rng, 2, y=(H, 2, C))
    params |= {f"p.{name}": value for name, value in heads.items()}
    inputs = draws(rng, x=(T, C)) | {"adj": rng.random((T, T)) < 0.4, "pos": rng.permutation(T)}
    return inputs, params, sizes | {"H": H}
