"""BT2: orthonormal maps by Gram and Schmidt, whose signs are those of a triangular factor with a positive diagonal."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, l2_norm


def orthonormal(A: Array) -> Array:
    Q = np.zeros_like(A)
    for j in range(A.shape[1]):
        rest = A[:, j] - Q[:, :j] @ (Q[:, :j].T @ A[:, j])
        Q[:, j] = rest / np.linalg.norm(rest)
    return Q


def basis_change(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": inputs["x"] @ orthonormal(inputs["A"])}


def basis_change_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4), A=(4, 4)), {}, {}


def basis_round_trip(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    return {"y": x, "before": (x * x).sum(axis=1), "after": (x * x).sum(axis=1)}


basis_round_trip_example = basis_change_example


def BasisTransformation(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    turned = l2_norm(inputs["old"]) @ orthonormal(params["O"])
    return {"y": np.concatenate([turned, inputs["x"]], axis=1) @ params["P"].T}


def BasisTransformation_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, old=(T, 3), x=(T, 2)), draws(rng, O=(3, 3), P=(5, 5)), {}
