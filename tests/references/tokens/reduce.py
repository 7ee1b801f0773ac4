"""Token reduction as a matrix: many tokens to many, and pruning."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, l2_norm, softmax


def token_transform(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, score, tau = (inputs[name] for name in ("x", "score", "tau"))
    z = l2_norm(x)
    best = np.argsort(-score, kind="stable")[: sizes["M"]]
    W = np.stack([softmax(z @ z[n] / tau) for n in best])
    y = W @ x
    return {"y": y, "back": (W / W.sum(axis=0)).T @ y}


def token_transform_example(rng: np.random.Generator, T: int) -> Example:
    N = T + 2
    return draws(rng, x=(N, 4), score=(N,)) | {"tau": np.array(0.7)}, {}, {"M": 3}


def token_pruning(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": inputs["x"][np.argsort(-inputs["score"], kind="stable")[: sizes["M"]]]}


def token_pruning_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T + 2, 4), score=(T + 2,)), {}, {"M": 3}
