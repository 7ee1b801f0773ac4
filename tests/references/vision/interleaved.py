"""FIT: groups answer themselves, latents read their group, all latents meet, groups read their latents."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, layer_norm, linear, softmax, under, weights


def attended(q: Array, k: Array, v: Array, seen: Array | None = None) -> Array:
    o = np.zeros((*q.shape[:2], v.shape[-1]))
    for t in range(len(q)):
        own = np.arange(len(k)) if seen is None else np.flatnonzero(seen[t])
        for h in range(q.shape[1]):
            o[t, h] = softmax(k[own, h] @ q[t, h] / np.sqrt(q.shape[-1])) @ v[own, h]
    return o


def answered(x: Array, z: Array, params: Tensors) -> Array:
    o = attended(linear(layer_norm(x), params, "q"), linear(layer_norm(z), params, "k"), linear(layer_norm(z), params, "v"))
    return x + linear(o, params, "y", 2)


def Answer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": answered(inputs["x"], inputs["z"], params)}


def answer_params(rng: np.random.Generator, C: int, B: int, H: int, D: int) -> Tensors:
    params = weights(rng, q=(C, H, D), k=(B, H, D), v=(B, H, D)) | weights(rng, 2, y=(H, D, C))
    return params | draws(rng, **{"q.bias": (H, D), "k.bias": (H, D), "v.bias": (H, D), "y.bias": (C,)})


def Answer_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4), z=(5, 3)), answer_params(rng, 4, 3, 2, 3), {"H": 2, "D": 3}


def LatentLayer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z = inputs["z"].reshape(-1, inputs["z"].shape[-1])
    group = np.arange(len(z)) // inputs["z"].shape[1]
    seen = (group <= group[:, None]) if sizes["causal_groups"] else np.ones((len(z), len(z)), bool)
    n = layer_norm(z)
    o = attended(linear(n, params, "q"), linear(n, params, "k"), linear(n, params, "v"), seen)
    u = z + linear(o, params, "u", 2)
    return {"y": (u + linear(gelu(linear(layer_norm(u), params, "f")), params, "y")).reshape(inputs["z"].shape)}


def layer_params(rng: np.random.Generator, B: int, H: int, D: int, M: int) -> Tensors:
    params = weights(rng, q=(B, H, D), k=(B, H, D), v=(B, H, D), f=(B, M), y=(M, B)) | weights(rng, 2, u=(H, D, B))
    biases = {"q.bias": (H, D), "k.bias": (H, D), "v.bias": (H, D), "u.bias": (B,), "f.bias": (M,), "y.bias": (B,)}
    return params | draws(rng, **biases)


def LatentLayer_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, z=(T, 2, 4)), layer_params(rng, 4, 2, 3, 5), {"H": 2, "D": 3, "M": 5, "causal_groups": 1}


def FIT(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, z = inputs["x"], inputs["z"]
    for l in range(sizes["L"]):
        a, r, s, own = (under(params, f"{name}{l + (name in 'zx')}") for name in ("a", "r", "z", "x"))
        x = np.stack([answered(group, group, a) for group in x])
        z = np.stack([answered(latents, group, r) for latents, group in zip(z, x, strict=True)])
        z = LatentLayer({"z": z}, s, sizes)["y"]
        x = np.stack([answered(group, latents, own) for group, latents in zip(x, z, strict=True)])
    return {"y": x, "w": z}


def FIT_example(rng: np.random.Generator, T: int) -> Example:
    C, B, H, L = 4, 6, 2, 2
    params: Tensors = {}
    for l in range(L):
        own = {f"a{l}": answer_params(rng, C, C, H, C // H), f"r{l}": answer_params(rng, B, C, H, B // H)}
        own |= {f"z{l + 1}": layer_params(rng, B, H, B // H, 4 * B), f"x{l + 1}": answer_params(rng, C, B, H, C // H)}
        params |= {f"{name}.{key}": value for name, part in own.items() for key, value in part.items()}
    return draws(rng, x=(T, 3, C), z=(T, 2, B)), params, {"L": L, "H": H, "causal_groups": 1}
