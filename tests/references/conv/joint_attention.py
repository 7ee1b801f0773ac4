"""Local squared-ReLU attention beside global linear attention, pair by pair."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws


def joint_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q1, k1, q2, k2, v = (inputs[name] for name in ("q1", "k1", "q2", "k2", "v"))
    T, g = len(v), sizes["g"]
    o = np.zeros_like(v)
    for t in range(T):
        start = t // g * g
        for s in range(T):
            weight = q2[t] @ k2[s] / T
            if start <= s < start + g:
                weight += max(q1[t] @ k1[s] / g, 0) ** 2
            o[t] += weight * v[s]
    return {"o": o}


def joint_attention_example(rng: np.random.Generator, T: int) -> Example:
    D, E = 3, 2
    return draws(rng, q1=(T, D), k1=(T, D), q2=(T, D), k2=(T, D), v=(T, E)), {}, {"g": 4}


joint_attention_masked, joint_attention_masked_example = joint_attention, joint_attention_example


def joint_attention_causal(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q1, k1, q2, k2, v = (inputs[name] for name in ("q1", "k1", "q2", "k2", "v"))
    g, o = sizes["g"], np.zeros_like(v)
    for t in range(len(v)):
        start = t // g * g
        for s in range(t + 1):
            o[t] += (max(q1[t] @ k1[s] / g, 0) ** 2 if s >= start else q2[t] @ k2[s] / g) * v[s]
    return {"o": o}


joint_attention_causal_example = joint_attention_example
