"""One layer of attention and a network; and a stack of Mamba layers with one attention layer."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, linear, rms_norm, silu, softmax, under, weights
from ..scan.mamba import Mamba
from .softmax import MultiHeadAttention, attend


def TransformerLayer(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    q, k, v = (linear(x, params, name) for name in ("q", "k", "v"))
    z = x + linear(attend(q, k, v, np.ones((len(x), len(x)))), params, "z", contracted=2)
    return {"y": linear(np.maximum(linear(z, params, "hidden"), 0), params, "y")}


def TransformerLayer_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, F = 6, 2, 4, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D), hidden=(C, F), y=(F, C)) | weights(rng, 2, z=(H, D, C))
    return draws(rng, x=(T, C)), params | draws(rng, **{"hidden.bias": (F,), "y.bias": (C,)}), {"H": H, "D": D, "F": F}


Attention = MultiHeadAttention


def Attention_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D = 6, 2, 3
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D)) | weights(rng, 2, y=(H, D, C))
    return draws(rng, x=(T, C)), params, {"H": H, "D": D}


def GatedNetwork(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    return {"y": linear(silu(linear(x, params, "gate")) * linear(x, params, "up"), params, "y")}


def GatedNetwork_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 6)), weights(rng, up=(6, 5), gate=(6, 5), y=(5, 6)), {"F": 5}


def Experts(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    score, y = linear(x, params, "score"), np.zeros(x.shape)
    for t in range(len(x)):
        chosen = np.argsort(-score[t])[: sizes["K"]]
        for i, weight in zip(chosen, softmax(score[t, chosen]), strict=True):
            gate, up = (x[t] @ params[f"{name}.weight"][:, i] for name in ("gate", "up"))
            y[t] += weight * (silu(gate) * up) @ params["y.weight"][i]
    return {"y": y}


def Experts_example(rng: np.random.Generator, T: int) -> Example:
    C, I, F = 6, 5, 4
    params = weights(rng, score=(C, I), up=(C, I, F), gate=(C, I, F)) | weights(rng, 2, y=(I, F, C))
    return draws(rng, x=(T, C)), params, {"I": I, "K": 2, "F": F}


def Jamba(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    for layer in range(sizes["L"]):
        mixer, network = (Attention, Experts) if layer == sizes["A"] else (Mamba, GatedNetwork)
        out = mixer({"x": rms_norm(x), "u": rms_norm(x)}, under(params, f"m{layer}"), {})
        x = x + out["out" if mixer is Mamba else "y"]
        x = x + network({"x": rms_norm(x)}, under(params, f"x{layer + 1}"), {"K": 2})["y"]
    return {"y": x}


def Jamba_example(rng: np.random.Generator, T: int) -> Example:
    C, N, F, R, W, H, I = 6, 3, 5, 1, 4, 2, 4
    params = {}
    for layer in range(4):
        scan = weights(rng, xin=(C, 2 * C), z=(C, 2 * C), low=(2 * C, R), B=(2 * C, N), C=(2 * C, N), dt=(R, 2 * C))
        scan |= weights(rng, out=(2 * C, C)) | draws(rng, w=(W, 2 * C), b=(2 * C,), dt_bias=(2 * C,), skip=(2 * C,))
        scan |= draws(rng, A_log=(2 * C, N))
        network = weights(rng, up=(C, F), gate=(C, F), y=(F, C))
        if layer == 2:
            scan = weights(rng, q=(C, H, 3), k=(C, H, 3), v=(C, H, 3)) | weights(rng, 2, y=(H, 3, C))
            network = weights(rng, score=(C, I), up=(C, I, F), gate=(C, I, F)) | weights(rng, 2, y=(I, F, C))
        params |= {f"m{layer}.{name}": value for name, value in scan.items()}
        params |= {f"x{layer + 1}.{name}": value for name, value in network.items()}
    return draws(rng, x=(T, C)), params, {"L": 4, "A": 2, "H": H, "N": N, "F": F}
