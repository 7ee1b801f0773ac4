"""Multi-head latent attention with keys and values made from the latent, head by head; and the layer."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, rms_norm, weights
from .positions import rope
from .softmax import attend


def mla(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    qn, qr, z, kr, Wk, Wv = (inputs[name] for name in ("qn", "qr", "z", "kr", "Wk", "Wv"))
    T, H, D = qn.shape
    R = qr.shape[2]
    q, k, v = np.zeros((T, H, D + R)), np.zeros((T, H, D + R)), np.zeros((T, H, Wv.shape[2]))
    for t in range(T):
        for h in range(H):
            q[t, h] = np.concatenate([qn[t, h], rope(qr[t, h], t)])
            k[t, h] = np.concatenate([z[t] @ Wk[:, h], rope(kr[t], t)])
            v[t, h] = z[t] @ Wv[:, h]
    return {"o": attend(q, k, v, np.tri(T))}


def mla_example(rng: np.random.Generator, T: int) -> Example:
    H, D, R, M, E = 3, 5, 4, 6, 2
    inputs = draws(rng, qn=(T, H, D), qr=(T, H, R), z=(T, M), kr=(T, R), Wk=(M, H, D), Wv=(M, H, E))
    return inputs, {}, {}


mla_absorbed = mla
mla_absorbed_example = mla_example


def MLA(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    asked = params["wq"] * rms_norm(linear(x, params, "low"))
    made = {"qn": linear(asked, params, "qn"), "qr": linear(asked, params, "qp"), "kr": linear(x, params, "kr")}
    made |= {"z": params["wz"] * rms_norm(linear(x, params, "latent")), "Wk": params["Wk"], "Wv": params["Wv"]}
    return {"y": linear(mla(made, {}, {})["o"], params, "y", contracted=2)}


def MLA_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, E, R, M, Q = 7, 3, 4, 5, 2, 6, 3
    params = weights(rng, low=(C, Q), qn=(Q, H, D), qp=(Q, H, R), latent=(C, M), kr=(C, R))
    params |= weights(rng, 2, y=(H, E, C))
    params |= draws(rng, wq=(Q,), wz=(M,), Wk=(M, H, D), Wv=(M, H, E))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D, "E": E, "R": R, "M": M, "Q": Q}
