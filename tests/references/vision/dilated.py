"""D-Former: groups of a volume that are blocks, or lattices; and a block of each after a positional convolution."""

from __future__ import annotations

from itertools import product

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, layer_norm, linear, softmax, weights

Place = tuple[int, ...]


def grouped(q: Array, k: Array, v: Array, sizes: Sizes, dilated: bool) -> Array:
    """Two tokens meet where their groups have the same number along each axis."""
    group = (sizes["A"], sizes["B"], sizes["C"])
    volume = q.shape[:3]

    def number(place: Place) -> Place:
        parts = zip(place, volume, group, strict=True)
        return tuple(p % (n // g) if dilated else p // g for p, n, g in parts)

    o = np.zeros((*q.shape[:4], v.shape[-1]))
    places = list(product(*map(range, volume)))
    for at in places:
        met = [p for p in places if number(p) == number(at)]
        for h in range(q.shape[3]):
            scores = np.array([q[at][h] @ k[p][h] for p in met]) / np.sqrt(q.shape[-1])
            o[at][h] = softmax(scores) @ np.array([v[p][h] for p in met])
    return o


def local_scope(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": grouped(inputs["q"], inputs["k"], inputs["v"], sizes, dilated=False)}


def global_scope(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": grouped(inputs["q"], inputs["k"], inputs["v"], sizes, dilated=True)}


def local_scope_example(rng: np.random.Generator, T: int) -> Example:
    shape = (2 * min(T, 8), 3, 2, 1)
    return draws(rng, q=(*shape, 3), k=(*shape, 3), v=(*shape, 2)), {}, {"A": 2, "B": 3, "C": 1}


global_scope_example = local_scope_example


def DFormer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    a = inputs["a"]
    padded = np.pad(a, ((1, 1), (1, 1), (1, 1), (0, 0)))
    x = a.copy()
    for at in product(range(3), repeat=3):
        x += params["near"][at] * padded[tuple(slice(s, s + n) for s, n in zip(at, a.shape[:3], strict=True))]
    for kind, out, dilated in (("l", "g", False), ("g", "b", True)):
        q, k, v = (linear(layer_norm(x), params, f"{name}{kind}") for name in "qkv")
        u = x + linear(grouped(q, k, v, sizes, dilated), params, f"u{kind}", 2)
        x = u + linear(gelu(linear(layer_norm(u), params, f"f{kind}")), params, out)
    return {"b": x}


def DFormer_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, M = 4, 2, 3, 5
    params = draws(rng, near=(3, 3, 3, C))
    for kind, out in (("l", "g"), ("g", "b")):
        shapes: dict[str, tuple[int, ...]] = {f"{name}{kind}": (C, H, D) for name in "qkv"}
        params |= weights(rng, **shapes, **{f"f{kind}": (C, M), out: (M, C)}) | weights(rng, 2, **{f"u{kind}": (H, D, C)})
        params |= draws(rng, **{f"{name}{kind}.bias": (H, D) for name in "qkv"})
        params |= draws(rng, **{f"u{kind}.bias": (C,), f"f{kind}.bias": (M,), f"{out}.bias": (C,)})
    return draws(rng, a=(2 * min(T, 8), 2, 2, C)), params, {"H": H, "D": D, "A": 2, "B": 2, "C": 1, "M": M}
