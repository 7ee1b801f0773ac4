"""RMT: a decay by Manhattan distance outside the softmax, inside it, and along one axis after the other."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, softmax, weights


def full(inputs: Tensors, inside: bool) -> Array:
    q, k, v, g = (inputs[name] for name in ("q", "k", "v", "g"))
    rows, columns, heads, width = q.shape
    o = np.zeros((rows, columns, heads, v.shape[-1]))
    away = np.abs(np.arange(rows)[:, None] - np.arange(rows)), np.abs(np.arange(columns)[:, None] - np.arange(columns))
    for i in range(rows):
        for j in range(columns):
            for h in range(heads):
                decay = g[h] * (away[0][i][:, None] + away[1][j])
                scores = k[:, :, h] @ q[i, j, h] / np.sqrt(width) + inside * decay
                p = softmax(scores.ravel()).reshape(scores.shape) * (1 if inside else np.exp(decay))
                o[i, j, h] = np.tensordot(p, v[:, :, h], 2)
    return o


def manhattan(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": full(inputs, inside=False)}


def manhattan_inside(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": full(inputs, inside=True)}


def along(q: Array, k: Array, v: Array, g: float) -> Array:
    """One line: decayed softmax weights."""
    place = np.arange(len(q))
    return (softmax(q @ k.T / np.sqrt(q.shape[-1])) * np.exp(g * np.abs(place[:, None] - place))) @ v


def axial(q: Array, k: Array, v: Array, g: Array) -> Array:
    o = np.zeros((*q.shape[:3], v.shape[-1]))
    for h in range(q.shape[2]):
        rows = np.stack([along(q[i, :, h], k[i, :, h], v[i, :, h], g[h]) for i in range(len(q))])
        o[:, :, h] = np.stack([along(q[:, j, h], k[:, j, h], rows[:, j], g[h]) for j in range(q.shape[1])], axis=1)
    return o


def manhattan_axial(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": axial(*(inputs[name] for name in ("q", "k", "v", "g")))}


def manhattan_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 2, 3), k=(T, 3, 2, 3), v=(T, 3, 2, 4), g=(2,))
    return inputs | {"g": -np.abs(inputs["g"])}, {}, {}


manhattan_inside_example = manhattan_example
manhattan_axial_example = manhattan_example


def ManhattanAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (linear(inputs["x"], params, name) for name in "qkv")
    g = np.array([np.log(1 - 2 ** (-1 - 3 * h / sizes["H"])) for h in range(sizes["H"])])
    padded = np.pad(v, ((2, 2), (2, 2), (0, 0), (0, 0)))
    lepe = np.zeros_like(v)
    for a in range(5):
        for b in range(5):
            lepe += params["near"][a, b] * padded[a : a + v.shape[0], b : b + v.shape[1]]
    return {"y": linear(axial(q, k, v, g) + lepe, params, "y", 2)}


def ManhattanAttention_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 4, 2, 3
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    params |= draws(rng, near=(5, 5, H, D), **{"q.bias": (H, D), "k.bias": (H, D), "v.bias": (H, D), "y.bias": (C,)})
    return draws(rng, x=(T, 3, C)), params, {"H": H, "D": D}
