"""The Legendre memory unit: its matrices entry by entry, exponentials by eigenvalues, one matrix product a step."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, linear, weights


def held(N: int, theta: int) -> tuple[Array, Array]:
    """exp(A) and the integral of exp(A s) B over a step, from one exponential of the joint matrix."""
    joint = np.zeros((N + 1, N + 1))
    for i in range(N):
        joint[i, N] = (2 * i + 1) * (-1) ** i / theta
        for j in range(N):
            joint[i, j] = (2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1))
    power, total, scale = np.eye(N + 1), np.eye(N + 1), 2.0**-20
    for k in range(1, 8):
        power = power @ joint * scale / k
        total = total + power
    for _ in range(20):
        total = total @ total
    return total[:N, :N], total[:N, N]


def lmu(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    a, b = held(sizes["N"], sizes["theta"])
    x = np.zeros((len(inputs["u"]), sizes["N"]))
    for t, u in enumerate(inputs["u"]):
        x[t] = (a @ x[t - 1] if t else 0) + b * u
    return {"x": x}


def lmu_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, u=(T,)), {}, {"N": 4, "theta": 9}


def LMU(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u = np.maximum(linear(inputs["x"], params, "u"), 0)
    m = lmu({"u": u}, {}, sizes)["x"]
    return {"h": np.maximum(linear(m, params, "h") + linear(inputs["x"], params, "h_2"), 0)}


def LMU_example(rng: np.random.Generator, T: int) -> Example:
    c, N, C = 5, 4, 3
    params = weights(rng, u=(c,), h=(N, C), h_2=(c, C)) | draws(rng, **{"u.bias": (), "h_2.bias": (C,)})
    return draws(rng, x=(T, c)), params, {"N": N, "theta": 9, "C": C}
