"""DRCT's dense group: each block sees the input and all that the earlier blocks made."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, under, weights
from .swin import SwinBlock, block_params


def heads(width: int, H: int) -> int:
    return H - width % H


def DenseGroup(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    made = [x]
    for l in range(1, 6):
        z = np.concatenate(made, axis=-1)
        H = heads(z.shape[-1], sizes["H"])
        options = {"H": H, "D": z.shape[-1] // H, "w": sizes["w"], "shift": 0 if l % 2 else sizes["w"] // 2}
        s = SwinBlock({"x": z}, under(params, f"s{l}"), options)["y"]
        if l < 5:
            t = linear(s, params, f"g{l}")
            made.append(np.where(t > 0, t, 0.2 * t))
    return {"y": x + 0.2 * linear(s, params, "y")}


def DenseGroup_example(rng: np.random.Generator, T: int) -> Example:
    C, H, G, w, r = 4, 3, 3, 2, 2
    params: Tensors = {}
    for l in range(1, 6):
        width = C + (l - 1) * G
        n = heads(width, H)
        block = block_params(rng, width, n, width // n, w, (r if l <= 3 else 1) * width)
        params |= {f"s{l}.{name}": value for name, value in block.items()}
        made = f"g{l}" if l < 5 else "y"
        out = G if l < 5 else C
        params |= weights(rng, **{made: (width, out)}) | draws(rng, **{f"{made}.bias": (out,)})
    return draws(rng, x=(T, 3, C)), params, {"H": H, "G": G, "w": w, "r": r}
