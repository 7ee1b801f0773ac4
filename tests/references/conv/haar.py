"""Wavelet subbands by Hadamard blocks."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws

STEP = np.array([[1, 1], [1, -1]]) / np.sqrt(2)   # what is low, what is high

# Two levels along one axis: rows by (second level, first level), the first pairs neighbours.
TWICE = np.einsum("ab,cd->acbd", STEP, STEP).reshape(4, 4)


def haar(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    rows, columns, C = x.shape
    blocks = x.reshape(rows // 2, 2, columns // 2, 2, C)
    return {"y": np.einsum("pm,qn,umvnc->uvpqc", STEP, STEP, blocks)}


def haar_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(2 * T, 4, 3)), {}, {}


def unhaar(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    y = inputs["y"]
    rows, columns, _, _, C = y.shape
    blocks = np.einsum("pm,qn,uvpqc->umvnc", STEP, STEP, y)   # symmetric and orthogonal
    return {"x": blocks.reshape(2 * rows, 2 * columns, C)}


def unhaar_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, y=(T, 3, 2, 2, 2)), {}, {}


def subbands(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """Subband s has the bits: second level along i and j, first level along i and j."""
    x = inputs["x"]
    rows, columns, C = x.shape
    blocks = x.reshape(rows // 4, 4, columns // 4, 4, C)
    y = np.einsum("pm,qn,umvnc->pquvc", TWICE, TWICE, blocks) / 4
    y = y.reshape(2, 2, 2, 2, rows // 4, columns // 4, C)     # i second, i first, j second, j first
    return {"y": y.transpose(0, 2, 1, 3, 4, 5, 6).reshape(16, rows // 4, columns // 4, C)}


def subbands_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(4 * T, 8, 2)), {}, {}


def unsubbands(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    y = inputs["y"]
    _, rows, columns, C = y.shape
    y = y.reshape(2, 2, 2, 2, rows, columns, C).transpose(0, 2, 1, 3, 4, 5, 6).reshape(4, 4, rows, columns, C)
    blocks = 4 * np.einsum("pm,qn,pquvc->umvnc", TWICE, TWICE, y)
    return {"x": blocks.reshape(4 * rows, 4 * columns, C)}


def unsubbands_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, y=(16, T, 2, 3)), {}, {}
