"""Attention whose keys are codewords."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws
from .softmax import attend, pool


def vq(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, code = (inputs[name] for name in ("q", "k", "v", "code"))
    quantised = np.zeros(k.shape)
    for t in range(len(k)):
        for h in range(k.shape[1]):
            distances = ((code[h] - k[t, h]) ** 2).sum(axis=1)
            quantised[t, h] = code[h, int(np.argmin(distances))]
    return {"o": attend(q, quantised, v, np.tri(len(q)))}


def vq_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 3), k=(T, 2, 3), v=(T, 2, 4), code=(2, 5, 3)), {}, {}


def vq_linear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    code, z = inputs["code"], inputs["z"]
    keys = np.array([[code[h, z[t, h]] for h in range(z.shape[1])] for t in range(len(z))])
    return {"o": attend(inputs["q"], keys, inputs["v"], np.tri(len(z)))}


def vq_linear_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 2, 3), v=(T, 2, 4), code=(2, 5, 3))
    return inputs | {"z": rng.integers(0, 5, (T, 2))}, {}, {}


def vq_block(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The keys near by are those given, with a bias; the others are codewords, without."""
    q, kq, v, code, z, b = (inputs[name] for name in ("q", "kq", "v", "code", "z", "b"))
    T, H, D = q.shape
    score = np.zeros((T, T, H))
    for t in range(T):
        for s in range(t + 1):
            near = s // sizes["L"] >= t // sizes["L"] - 1
            for h in range(H):
                key = kq[s, h] if near else code[h, z[s, h]]
                bias = b[h, t - s] if near and t - s < b.shape[1] else 0
                score[t, s, h] = q[t, h] @ key / np.sqrt(D) + bias
    return {"o": pool(score, v, np.tri(T))}


def vq_block_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 2, 3), kq=(T, 2, 3), v=(T, 2, 4), code=(2, 5, 3), b=(2, 6))
    return inputs | {"z": rng.integers(0, 5, (T, 2))}, {}, {"L": 4}


def vq_block_quadratic(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    code, z = inputs["code"], inputs["z"]
    keys = np.array([[code[h, z[t, h]] for h in range(z.shape[1])] for t in range(len(z))])
    return vq_block(inputs | {"kq": keys}, {}, sizes)


def vq_block_quadratic_example(rng: np.random.Generator, T: int) -> Example:
    inputs, params, sizes = vq_block_example(rng, T)
    return {name: value for name, value in inputs.items() if name != "kq"}, params, sizes
