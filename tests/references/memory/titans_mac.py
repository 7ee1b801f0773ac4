"""Titans' memory as a context: segment after segment, explicit softmax over one list of keys for each token."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, l2_norm, linear, rms_norm, sigmoid, weights
from .titans_layers import attended


def MAC(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """Segment after segment: retrieve, attend, write with the segment's first memory, read again."""
    x, m = inputs["x"], sizes["m"]
    _, H, D = params["pk"].shape
    y, memory, momentum = np.zeros_like(x), np.zeros((H, D, D)), np.zeros((H, D, D))
    for start in range(0, len(x), m):
        part, frozen = x[start : start + m], memory
        found = np.einsum("thd,hde->the", l2_norm(linear(part, params, "ask")), frozen)
        z = linear(found, params, "z", contracted=2)
        q, k, v = (linear(part, params, name) for name in ("q", "k", "v"))
        kz, vz = linear(z, params, "kz"), linear(z, params, "vz")
        for i in range(len(part)):
            o = np.zeros((H, D))
            for h in range(H):
                keys = np.concatenate([params["pk"][:, h], kz[: i + 1, h], k[: i + 1, h]])
                values = np.concatenate([params["pv"][:, h], vz[: i + 1, h], v[: i + 1, h]])
                o[h] = attended(q[i, h], keys, values)
            u = linear(o, params, "u", contracted=2)
            key, val, r = l2_norm(linear(u, params, "key")), linear(u, params, "val"), l2_norm(linear(u, params, "r"))
            alpha, eta, theta = (sigmoid(linear(u, params, name)) for name in ("alpha", "eta", "theta"))
            answer = np.zeros((H, D))
            for h in range(H):
                surprise = 2 * np.outer(key[h], key[h] @ frozen[h] - val[h])
                momentum[h] = eta[h] * momentum[h] - theta[h] / 2 * surprise
                memory = memory.copy()
                memory[h] = (1 - alpha[h]) * memory[h] + momentum[h]
                answer[h] = r[h] @ memory[h]
            y[start + i] = u * sigmoid(linear(rms_norm(answer), params, "y", contracted=2))
    return {"y": y}


def MAC_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, P = 5, 2, 3, 2
    per_head = dict.fromkeys(("ask", "q", "k", "v", "kz", "vz", "key", "val", "r"), (C, H, D))
    params = weights(rng, **per_head, alpha=(C, H), eta=(C, H), theta=(C, H))
    params |= weights(rng, 2, z=(H, D, C), u=(H, D, C), y=(H, D, C)) | draws(rng, pk=(P, H, D), pv=(P, H, D))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "P": P, "m": 3}
