"""Sets pooled to one vector, feature by feature; views, planes and channels as sets."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, layer_norm, linear, softmax, weights
from .softmax import attend
from .top_k import channel_map


def pooled(x: Array, s: Array) -> Array:
    """[c] from [m,c]: every feature has weights of its own."""
    return np.array([softmax(s[:, c]) @ x[:, c] for c in range(x.shape[1])])


def att_sets(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": pooled(inputs["x"], inputs["s"])}


def att_sets_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 5), s=(T, 5)), {}, {}


att_sets_stream = att_sets
att_sets_stream_example = att_sets_example


def AttSets(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": pooled(inputs["x"], linear(inputs["x"], params, "s"))}


def AttSets_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 5)), weights(rng, s=(5, 5)) | {"s.bias": rng.standard_normal(5)}, {}


def ViewSet(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (linear(layer_norm(x), params, name) for name in ("q", "k", "v"))
    z = x + linear(attend(q, k, v, np.ones((len(x), len(x)))), params, "z", contracted=2)
    w = z + linear(gelu(linear(layer_norm(z), params, "hidden")), params, "w")
    return {"y": np.concatenate([w.max(axis=0), w.mean(axis=0)])}


def ViewSet_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, F = 6, 2, 4, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D), hidden=(C, F), w=(F, C)) | weights(rng, 2, z=(H, D, C))
    params |= draws(rng, **{"z.bias": (C,), "hidden.bias": (F,), "w.bias": (C,)})
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "F": F}


def triplane(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    plane, s, at = (inputs[name] for name in ("plane", "s", "at"))
    found = []
    for a, b, c in at:
        places = [(0, a, b), (1, b, c), (2, c, a)]
        found.append(pooled(np.array([plane[p] for p in places]), np.array([s[p] for p in places])))
    return {"y": np.array(found)}


def triplane_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, plane=(3, 4, 4, 5), s=(3, 4, 4, 5)) | {"at": rng.integers(0, 4, (T, 3))}, {}, {}


def channel_tokens(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, tau = (inputs[name] for name in ("q", "k", "v", "tau"))
    y = np.zeros(q.shape)
    for h in range(q.shape[1]):
        y[:, h] = v[:, h] @ softmax(channel_map(q[:, h], k[:, h], tau[h])).T
    return {"y": y}


def channel_tokens_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 5), k=(T, 2, 5), v=(T, 2, 5), tau=(2,)), {}, {}
