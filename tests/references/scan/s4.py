"""S4 with its matrix made dense: A = diag(Lam) - P P*, the bilinear rule by a general inverse, powers for the kernel."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, complex_draw, draws, gelu, linear, sigmoid, weights


def s4(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    u, Lam, P, B, C, dt = (inputs[name] for name in ("u", "Lam", "P", "B", "C", "dt"))
    A = np.diag(Lam) - np.outer(P, P.conj())
    y = np.zeros_like(u)
    for c in range(u.shape[1]):
        left = np.linalg.inv(np.eye(len(Lam)) - dt[c] / 2 * A)
        a, b = left @ (np.eye(len(Lam)) + dt[c] / 2 * A), left @ (dt[c] * B)
        state = np.zeros(len(Lam), complex)
        for t in range(len(u)):
            state = a @ state + b * u[t, c]
            y[t, c] = (C[c] @ state).real
    return {"y": y}


def s4_example(rng: np.random.Generator, T: int) -> Example:
    c, n = 3, 4
    inputs = draws(rng, u=(T, c)) | {"Lam": -rng.uniform(0.2, 1, n) + 1j * rng.uniform(-6, 6, n)}
    inputs |= {"P": complex_draw(rng, n), "B": complex_draw(rng, n), "C": complex_draw(rng, c, n)}
    return inputs | {"dt": rng.uniform(0.1, 0.5, c)}, {}, {}


s4_conv, s4_conv_example = s4, s4_example


def S4(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    system = {"u": inputs["x"], "Lam": -np.exp(params["re_log"]) + 1j * params["omega"], "dt": np.exp(params["log_dt"])}
    z = gelu(s4(system | {name: params[name] for name in "PBC"}, {}, {})["y"] + params["D"] * inputs["x"])
    return {"out": linear(z, params, "out") * sigmoid(linear(z, params, "out_2"))}


def S4_example(rng: np.random.Generator, T: int) -> Example:
    c, N = 3, 4
    params = weights(rng, out=(c, c), out_2=(c, c)) | draws(rng, D=(c,), **{"out.bias": (c,), "out_2.bias": (c,)})
    params |= {"log_dt": rng.uniform(np.log(0.01), np.log(0.3), c), "re_log": 0.3 * rng.standard_normal(N)}
    params |= {"omega": rng.uniform(-8, 8, N), "P": complex_draw(rng, N), "B": complex_draw(rng, N)}
    return draws(rng, x=(T, c)), params | {"C": complex_draw(rng, c, N)}, {"N": N}
