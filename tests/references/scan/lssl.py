"""The linear state-space layer: a general inverse for the generalised bilinear rule, one matrix product a step."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, linear, weights


def run(u: Array, a: Array, b: Array, C: Array) -> Array:
    y = np.zeros((*u.shape, C.shape[1]))
    for c in range(u.shape[1]):
        state = np.zeros(b.shape[1])
        for t in range(len(u)):
            state = a[c] @ state + b[c] * u[t, c]
            y[t, c] = C[c] @ state
    return y


def lssl(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u, A, B, C, D, dt, alpha = (inputs[name] for name in ("u", "A", "B", "C", "D", "dt", "alpha"))
    eye = np.eye(len(A))
    left = [np.linalg.inv(eye - alpha * step * A) for step in dt]
    a = np.stack([inverse @ (eye + (1 - alpha) * step * A) for inverse, step in zip(left, dt, strict=True)])
    b = np.stack([inverse @ (step * B) for inverse, step in zip(left, dt, strict=True)])
    return {"y": run(u, a, b, C) + D * u[:, :, None]}


def lssl_bilinear_example(rng: np.random.Generator, T: int) -> Example:
    c, o, n = 3, 2, 4
    inputs = draws(rng, u=(T, c), A=(n, n), B=(n,), C=(c, o, n), D=(c, o))
    return inputs | {"A": 0.3 * inputs["A"] - np.eye(n), "dt": rng.uniform(0.1, 0.5, c)}, {}, {}


def lssl_bilinear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return lssl(inputs | {"alpha": np.array(0.5)}, {}, {})


def lssl_example(rng: np.random.Generator, T: int) -> Example:
    return lssl_bilinear_example(rng, T)[0] | {"alpha": np.array(0.7)}, {}, {}


def krylov(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": run(inputs["u"], inputs["a"], inputs["b"], inputs["C"])}


def krylov_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, u=(T, 3), a=(3, 4, 4), b=(3, 4), C=(3, 2, 4))
    return inputs | {"a": 0.3 * inputs["a"]}, {}, {}


def hippo(N: int) -> tuple[Array, Array]:
    """HiPPO-LegS, entry by entry."""
    A = np.zeros((N, N))
    for n in range(N):
        A[n, n] = -(n + 1)
        for k in range(n):
            A[n, k] = -np.sqrt((2 * n + 1) * (2 * k + 1))
    return A, np.sqrt(2.0 * np.arange(N) + 1)


def LSSL(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    A, B = hippo(sizes["N"])
    system = {"u": inputs["u"], "A": A, "B": B, "C": params["C"], "D": params["D"], "dt": np.exp(params["log_dt"])}
    return {"out": linear(gelu(lssl_bilinear(system, {}, {})["y"]), params, "out", contracted=2)}


def LSSL_example(rng: np.random.Generator, T: int) -> Example:
    c, N, M = 3, 4, 2
    params = weights(rng, 2, out=(c, M, c)) | draws(rng, C=(c, M, N), D=(c, M), **{"out.bias": (c,)})
    return draws(rng, u=(T, c)), params | {"log_dt": rng.uniform(np.log(0.01), np.log(0.3), c)}, {"N": N, "M": M}
