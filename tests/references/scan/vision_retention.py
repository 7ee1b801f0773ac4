"""Vision retention, with the mask of decays written out; and its layer, the class token last."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, weights


def vision_retention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in "qkv")
    T, H, D = q.shape
    decay = 1 - np.exp(np.linspace(np.log(1 / 32), np.log(1 / 512), H))
    o = np.zeros_like(v)
    for h in range(H):
        mask = np.array([[decay[h] ** (t - s) if s <= t else 0 for s in range(T)] for t in range(T)])
        o[:, h] = (mask * (q[:, h] @ k[:, h].T)) @ v[:, h] / np.sqrt(D)
    return {"o": o}


def vision_retention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4)), {}, {}


vision_retention_parallel, vision_retention_parallel_example = vision_retention, vision_retention_example


def ViR(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    tokens = np.concatenate([x.reshape(-1, x.shape[2]), params["last"][None]])
    q, k, v = (linear(tokens, params, name) for name in "qkv")
    return {"y": linear(vision_retention({"q": q, "k": k, "v": v}, {}, {})["o"], params, "y", contracted=2)}


def ViR_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 5, 2, 3
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    params |= {f"{name}.bias": rng.standard_normal((H, D)) for name in "qkv"} | draws(rng, **{"y.bias": (C,), "last": (C,)})
    return draws(rng, x=(T, 2, C)), params, {"H": H, "D": D}
