"""A scan over pruned tokens: over the kept ones only, each decayed by everything since the kept one before."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors
from .mamba import selective_scan_example


def pruned_scan(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, dt, A, B, C, skip, keep = (inputs[name] for name in ("x", "dt", "A", "B", "C", "skip", "keep"))
    y = np.zeros_like(x)
    state, last = np.zeros(A.shape), -1
    for t in np.flatnonzero(keep):
        decay = np.exp(dt[last + 1 : t + 1].sum(axis=0)[:, None] * A)
        state = decay * state + (dt[t] * x[t])[:, None] * B[t]
        y[t] = state @ C[t] + skip * x[t]
        last = t
    return {"y": y}


def pruned_scan_example(rng: np.random.Generator, T: int) -> Example:
    return selective_scan_example(rng, T)[0] | {"keep": rng.uniform(0, 1, T) < 0.6}, {}, {}


pruned_compressed, pruned_compressed_example = pruned_scan, pruned_scan_example


def important(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    score = np.maximum(inputs["y"], 0).sum(axis=1)
    score[len(score) // 2] = np.inf
    keep = np.zeros(len(score))
    keep[np.argsort(-score, kind="stable")[: sizes["K"]]] = 1
    return {"keep": keep}


def important_example(rng: np.random.Generator, T: int) -> Example:
    return {"y": rng.standard_normal((T, 3))}, {}, {"K": (T + 1) // 2}
