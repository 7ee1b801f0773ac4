"""Block attention with rotated features, a linear bias, and drawn blocks."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws
from .positions import alibi_slope, rope
from .softmax import pool


def attended(inputs: Tensors, Z: Array, B: int, *, unbiased: bool = False) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    T, H, D = q.shape
    score, visible = np.zeros((T, T, H)), np.zeros((T, T))
    for t in range(T):
        for s in range(t + 1):
            away = t // B - s // B
            visible[t, s] = away == 0 or Z[t // B, s // B]
            for h in range(H):
                score[t, s, h] = rope(q[t, h], t) @ rope(k[s, h], s) / np.sqrt(D) - alibi_slope(h, H) * (t - s)
                if unbiased:
                    score[t, s, h] -= np.log(1 / (1 + away))
    return {"o": pool(score, v, visible)}


def pr_flash(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return attended(inputs, inputs["Z"], sizes["B"])


def pr_flash_example(rng: np.random.Generator, T: int) -> Example:
    B = 3
    blocks = (T + B - 1) // B
    inputs = draws(rng, q=(T, 3, 4), k=(T, 3, 4), v=(T, 3, 5))
    return inputs | {"Z": rng.random((blocks, blocks)) < 0.5}, {}, {"B": B}


def pr_flash_all(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return attended(inputs, np.ones((1, 1), bool), len(inputs["q"]))


def pr_flash_all_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 4), k=(T, 3, 4), v=(T, 3, 5)), {}, {}


def pr_flash_unbiased(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return attended(inputs, inputs["Z"], sizes["B"], unbiased=True)


pr_flash_unbiased_example = pr_flash_example
