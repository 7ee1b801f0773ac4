"""ReCAP: plain attention over keys and values of which some come from a cache."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, softmax, weights


def mixed(q: Array, k: Array, v: Array, kc: Array, vc: Array, fresh: Array) -> Array:
    keys, values = k.copy(), v.copy()
    keys[~fresh], values[~fresh] = kc[~fresh], vc[~fresh]
    heads = [softmax(q[:, h] @ keys[:, h].T / np.sqrt(q.shape[-1])) @ values[:, h] for h in range(q.shape[1])]
    return np.stack(heads, axis=1)


def cached_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": mixed(*(inputs[name] for name in ("q", "k", "v", "kc", "vc", "fresh")))}


def cached_attention_example(rng: np.random.Generator, T: int) -> Example:
    shapes = {"q": (T, 2, 3), "k": (T, 2, 3), "v": (T, 2, 4), "kc": (T, 2, 3), "vc": (T, 2, 4)}
    return draws(rng, **shapes) | {"fresh": rng.random(T) < 0.5}, {}, {}


def CachedLayer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x0, x, fresh = inputs["x0"], inputs["x"], inputs["fresh"]
    q, k, v = (np.tensordot(x, params[name], 1) for name in ("wq", "wk", "wv"))
    kc, vc = (np.tensordot(x0, params[name], 1) for name in ("wk", "wv"))
    y = x + linear(mixed(q, k, v, kc, vc, fresh), params, "y", 2)
    return {"y": np.where(fresh[:, None], y, 0)}


def CachedLayer_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 4, 2, 3
    params = draws(rng, wq=(C, H, D), wk=(C, H, D), wv=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x0=(T, C), x=(T, C)) | {"fresh": rng.random(T) < 0.5}, params, {"H": H, "D": D}
