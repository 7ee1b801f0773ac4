"""ATLAS: windowed corrections with the gradient by hand, and Newton-Schulz steps."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, l2_norm


def omega(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """M = M (alpha - 2 eta G) + 2 eta B with G, B summed over the window; M is features by values here."""
    q, k, v, alpha, eta, g = (inputs[name] for name in ("q", "k", "v", "alpha", "eta", "g"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        M = np.zeros((D, v.shape[2]))
        for t in range(T):
            past = [(g[t, h, j], k[t - j, h], v[t - j, h]) for j in range(min(g.shape[2], t + 1))]
            G = sum(weight * np.outer(key, key) for weight, key, _ in past)
            B = sum(weight * np.outer(key, value) for weight, key, value in past)
            M = (alpha[t, h] * np.eye(D) - 2 * eta[t, h] * G) @ M + 2 * eta[t, h] * B
            o[t, h] = q[t, h] @ M
    return {"o": o}


def omega_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 3, 5), k=(T, 3, 5), v=(T, 3, 4))
    inputs |= {"alpha": rng.uniform(0.6, 1, (T, 3)), "eta": rng.uniform(0.05, 0.4, (T, 3))}
    return inputs | {"k": l2_norm(inputs["k"]), "g": rng.uniform(0, 1, (T, 3, 3))}, {}, {}


def newton_schulz(G: Array, steps: int = 5) -> Array:
    X = G / np.sqrt((G * G).sum() + 1e-12)
    for _ in range(steps):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X


def atlas(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, alpha, eta, theta, gamma = (inputs[n] for n in ("q", "k", "v", "alpha", "eta", "theta", "gamma"))
    T, H, D = q.shape
    o = np.zeros((T, H, v.shape[2]))
    for h in range(H):
        M, S = np.zeros((D, v.shape[2])), np.zeros((D, v.shape[2]))
        for t in range(T):
            S = theta[t, h] * S
            for s in range(max(t - sizes["W"] + 1, 0), t + 1):
                S = S + 2 * gamma[s, h] * np.outer(k[s, h], k[s, h] @ M - v[s, h])
            M = alpha[t, h] * M - eta[t, h] * newton_schulz(S)
            o[t, h] = q[t, h] @ M
    return {"o": o}


def atlas_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 2, 3), k=(T, 2, 3), v=(T, 2, 4))
    inputs |= {name: rng.uniform(0.1, 0.9, (T, 2)) for name in ("alpha", "eta", "theta", "gamma")}
    return inputs | {"k": l2_norm(inputs["k"])}, {}, {"W": 3}
