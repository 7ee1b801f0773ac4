"""RECOMBINER: a latent is the sum over the nodes above its patch; weights and positional codes are linear in it."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws


def hierarchical_prior(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    mu, sigma, noise = (inputs[name] for name in ("mu", "sigma", "noise"))
    z = np.zeros(mu.shape[1:])
    for n in range(mu.shape[1]):
        node = n
        for l in range(len(mu)):
            z[n] += mu[l, node] + sigma[l, node] * noise[l, node]
            node //= sizes["w"]
    return {"z": z}


def hierarchical_prior_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, mu=(3, T, 2), sigma=(3, T, 2), noise=(3, T, 2)), {}, {"w": 2}


def latent_weights(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"W": np.einsum("nc,cab->nab", inputs["z"], inputs["A"])}


def latent_weights_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, z=(T, 3), A=(3, 4, 2)), {}, {}


def positional_code(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z, k = inputs["z"], inputs["k"]
    up = np.repeat(z, 2, axis=0)
    padded = np.pad(up, ((len(k) // 2, len(k)), (0, 0)))
    return {"y": np.stack([np.einsum("jc,jce->e", padded[t : t + len(k)], k) for t in range(len(up))])}


def positional_code_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, z=(T, 3), k=(3, 3, 2)), {}, {}


def PatchNetwork(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    p, W, bias = (inputs[name] for name in ("p", "W", "bias"))
    return {"y": np.stack([np.sin(30 * (p[n] @ W[n] + bias[n])) for n in range(len(p))])}


def PatchNetwork_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, p=(T, 4, 3), W=(T, 3, 2), bias=(T, 2)), {}, {}
