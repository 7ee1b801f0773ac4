"""Log-linear attention over explicit Fenwick segments: 0..t is cut into blocks of powers of two; and its layer."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, rms_norm, silu, softplus, weights


def segments(t: int) -> list[tuple[int, range]]:
    """(level, tokens): the token itself, then the blocks that the binary digits of t name, the nearest first."""
    found, end = [(0, range(t, t + 1))], t
    for bit in range(t.bit_length()):
        if t >> bit & 1:
            found.append((bit + 1, range(end - (1 << bit), end)))
            end -= 1 << bit
    return found


def log_linear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, a, lam = (inputs[name] for name in ("q", "k", "v", "a", "lam"))
    o = np.zeros_like(v)
    for t in range(len(q)):
        for level, tokens in segments(t):
            for s in tokens:
                weight = lam[t, :, level] * np.exp(a[s + 1 : t + 1].sum(axis=0)) * (q[t] * k[s]).sum(axis=-1)
                o[t] += weight[:, None] * v[s]
    return {"o": o}


def log_linear_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 2, 3), k=(T, 2, 3), v=(T, 2, 4))
    return inputs | {"a": -rng.uniform(0.01, 1, (T, 2)), "lam": rng.uniform(0, 1, (T, 2, 7))}, {}, {}


log_linear_recurrent, log_linear_recurrent_example = log_linear, log_linear_example


def LogLinear(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    dt = softplus(linear(x, params, "dt") + params["dt_bias"])
    mixed = {"q": linear(x, params, "q"), "k": linear(x, params, "k"), "v": dt[:, :, None] * linear(x, params, "v")}
    mixed |= {"a": -np.exp(params["A_log"]) * dt, "lam": softplus(params["level"] * linear(x, params, "lam"))}
    o = log_linear(mixed, {}, {})["o"]
    return {"y": linear(rms_norm(o) * silu(linear(x, params, "gate")), params, "y", contracted=2)}


def LogLinear_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, L = 5, 2, 3, 4, 8
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, E), dt=(C, H), lam=(C, H, L), gate=(C, H, E))
    params |= weights(rng, 2, y=(H, E, C)) | draws(rng, A_log=(H,), dt_bias=(H,), level=(H, L))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E, "L": L}
