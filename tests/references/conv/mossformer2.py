"""MossFormer2: the layer of joint attention, and the gated memory unit."""

from __future__ import annotations

import numpy as np

from ..numerics import (
    Array,
    Example,
    Sizes,
    Tensors,
    draws,
    layer_norm,
    linear,
    rms_norm,
    sigmoid,
    silu,
    under,
    weights,
)
from .fsmn import DilatedFSMN, DilatedFSMN_example, both_sides
from .joint_attention import joint_attention


def FFConvM(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    a = silu(linear(params["gain"] * rms_norm(inputs["x"]), params, "a"))
    return {"y": a + both_sides(a, params["w"])}


def _conv_params(rng: np.random.Generator, C: int, F: int, W: int) -> Tensors:
    params = weights(rng, a=(C, F)) | draws(rng, w=(W, F))
    return params | {"a.bias": rng.standard_normal(F), "gain": rng.uniform(0.5, 1.5)}


def FFConvM_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4)), _conv_params(rng, 4, 6, 5), {"F": 6, "W": 5}


def _called(x: Array, params: Tensors, name: str) -> Array:
    return FFConvM({"x": x}, under(params, name), {})["y"]


def _named(name: str, params: Tensors) -> Tensors:
    return {f"{name}.{key}": value for key, value in params.items()}


def MossFormerAttention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, D, R = inputs["x"], sizes["D"], sizes["R"]
    T, C = x.shape
    late = x.copy()
    late[:, : C // 2] = np.concatenate([np.zeros((1, C // 2)), x[:-1, : C // 2]])
    v, u, z = (_called(late, params, name) for name in "vuz")
    heads = []
    for m in range(4):
        each = params["scale"][m] * z + params["shift"][m]
        turned = each.copy()
        for t in range(T):
            for d in range(0, min(R, D), 2):
                angle = t * 10000 ** (-d / R)
                turned[t, d] = each[t, d] * np.cos(angle) - each[t, d + 1] * np.sin(angle)
                turned[t, d + 1] = each[t, d + 1] * np.cos(angle) + each[t, d] * np.sin(angle)
        heads.append(turned)
    named = dict(zip(("q1", "k1", "q2", "k2"), heads, strict=True))
    V, U = (joint_attention(named | {"v": value}, {}, {"g": sizes["G"]})["o"] for value in (v, u))
    return {"y": x + _called(U * v * sigmoid(V * u), params, "back")}


def MossFormerAttention_example(rng: np.random.Generator, T: int) -> Example:
    C, D, W = 4, 6, 17
    params = draws(rng, scale=(4, D), shift=(4, D))
    for name, width, made in (("v", C, 2 * C), ("u", C, 2 * C), ("z", C, D), ("back", 2 * C, C)):
        params |= _named(name, _conv_params(rng, width, made, W))
    return draws(rng, x=(T, C)), params, {"D": D, "G": 3, "R": 4}


def GatedConvUnit(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, (first, second), (low, high) = inputs["x"], params["scale"], params["shift"]
    a = linear(x, params, "a")
    z = first * layer_norm(np.where(a > 0, a, params["slope"] * a)) + low
    remembered = DilatedFSMN({"x": _called(z, params, "f")}, under(params, "d"), {})["y"]
    o = second * layer_norm(_called(z, params, "v") * remembered + z) + high
    return {"y": x + linear(o, params, "y")}


def GatedConvUnit_example(rng: np.random.Generator, T: int) -> Example:
    width, C = 3, 4
    _, memory, sizes = DilatedFSMN_example(rng, T)
    params = weights(rng, a=(width, C), y=(C, width)) | _named("d", memory)
    params |= draws(rng, scale=(2, C), shift=(2, C), **{"a.bias": (C,), "y.bias": (width,)})
    params |= {"slope": rng.uniform(0.1, 0.9, C)}
    params |= _named("f", _conv_params(rng, C, C, 17)) | _named("v", _conv_params(rng, C, C, 17))
    return draws(rng, x=(T, width)), params, {"C": C, "F": sizes["F"], "W": sizes["W"]}
