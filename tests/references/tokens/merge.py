"""Token merging with lists of tokens that are lists of what they hold; PYRA modulates what is about to be merged."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, l2_norm, layer_norm, sigmoid


def pairs(key: Array, r: int) -> list[tuple[int, int]]:
    """(source, destination) of the r best pairs, best first; token 0 comes last."""
    m = l2_norm(key)
    scores = m[0::2] @ m[1::2].T
    scores[0] = -np.inf
    best = scores.argmax(axis=1)
    order = sorted(range(len(scores)), key=lambda a: (-scores[a].max(), a))
    return [(2 * a, 2 * int(best[a]) + 1) for a in order[:r]]


def merged(x: Array, size: Array, moves: list[tuple[int, int]]) -> Tensors:
    gone = {source for source, _ in moves}
    tokens = [[n] for n in range(0, len(x), 2) if n not in gone]
    tokens += [[n, *(source for source, to in moves if to == n)] for n in range(1, len(x), 2)]
    weights = [size[own].sum() for own in tokens]
    return {"y": np.array([size[own] @ x[own] for own in tokens]) / np.array(weights)[:, None], "new_size": np.array(weights)}


def token_merging(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return merged(inputs["x"], inputs["size"], pairs(inputs["key"], sizes["r"]))


def token_merging_example(rng: np.random.Generator, T: int) -> Example:
    N = T + 5
    return draws(rng, x=(N, 3), key=(N, 4)) | {"size": rng.uniform(0.5, 2, N)}, {}, {"r": 2}


def modulated_merging(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, moves = inputs["x"].copy(), pairs(inputs["key"], sizes["r"])
    sources, destinations = (list(own) for own in zip(*moves, strict=True))
    Z = layer_norm(x[sources] + x[destinations])
    w1 = 2 * sigmoid(inputs["u"][: len(moves)] @ Z)
    w2 = 2 * sigmoid(Z @ inputs["v"]) - 1
    x[sources] += x[sources] * w1 * w2[:, None]
    return merged(x, inputs["size"], moves)


def modulated_merging_example(rng: np.random.Generator, T: int) -> Example:
    inputs, _, sizes = token_merging_example(rng, T)
    return inputs | draws(rng, u=(3,), v=(3,)), {}, sizes
