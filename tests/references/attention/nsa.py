"""Native sparse attention, query by query: which blocks have ended, which are chosen, which tokens are near."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, sigmoid, softmax, weights


def attended(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """One query against some keys: the weights and the output; zeros where there are no keys."""
    if len(k) == 0:
        return np.zeros(0), np.zeros(v.shape[1])
    p = softmax(k @ q / np.sqrt(len(q)))
    return p, p @ v


def nsa(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, gate = (inputs[name] for name in ("q", "k", "v", "gate"))
    B, top, W = sizes["B"], sizes["top"], sizes["W"]
    T, G, H, _ = q.shape
    o = np.zeros((T, G, H, v.shape[2]))
    for t in range(T):
        ended, own = (t + 1) // B, t // B
        for g in range(G):
            kc, vc = (x[: ended * B, g].reshape(ended, B, x.shape[2]).mean(axis=1) for x in (k, v))
            compressed = [attended(q[t, g, h], kc, vc) for h in range(H)]
            scores = np.zeros(own + 1)
            scores[:ended] = sum(p for p, _ in compressed)
            others = sorted(range(own), key=lambda m: -scores[m])
            chosen = {own, *others[: top - 1]}
            selected = [s for s in range(t + 1) if s // B in chosen]
            near = list(range(max(0, t - W + 1), t + 1))
            for h in range(H):
                branches = [compressed[h][1]] + [attended(q[t, g, h], k[s, g], v[s, g])[1] for s in (selected, near)]
                o[t, g, h] = sum(gate[t, g, h, n] * branch for n, branch in enumerate(branches))
    return {"o": o}


def nsa_example(rng: np.random.Generator, T: int) -> Example:
    G, H = 2, 3
    inputs = draws(rng, q=(T, G, H, 5), k=(T, G, 5), v=(T, G, 4), gate=(T, G, H, 3))
    return inputs, {}, {"B": 4, "top": 2, "W": 3}


def NSA(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mixed = {name: linear(inputs["x"], params, name) for name in ("q", "k", "v", "gate")}
    mixed["gate"] = sigmoid(mixed["gate"])
    return {"y": linear(nsa(mixed, {}, sizes)["o"], params, "y", contracted=3)}


def NSA_example(rng: np.random.Generator, T: int) -> Example:
    C, G, H, D = 7, 2, 2, 3
    params = weights(rng, q=(C, G, H, D), k=(C, G, D), v=(C, G, D), gate=(C, G, H, 3)) | weights(rng, 3, y=(G, H, D, C))
    return draws(rng, x=(T, C)), params, {"G": G, "H": H, "D": D, "B": 3, "top": 2, "W": 4}
