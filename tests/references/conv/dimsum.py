"""DiMSUM: Mamba under a condition, swapped cross-attention."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, layer_norm, linear, silu, softmax, under, weights
from ..scan.mamba import Mamba, Mamba_example
from .haar import subbands, unsubbands


def ConditionedMamba(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    scale, shift, gate = linear(silu(inputs["e"]), params, "g")
    z = layer_norm(x) * (1 + scale) + shift
    return {"y": x + gate * Mamba({"u": z}, under(params, "m"), {})["out"]}


def _conditioned(rng: np.random.Generator, T: int, B: int) -> tuple[int, Tensors, Sizes]:
    inputs, params, sizes = Mamba_example(rng, T)
    C = inputs["u"].shape[1]
    params = {f"m.{name}": value for name, value in params.items()} | weights(rng, g=(B, 3, C))
    return C, params | draws(rng, **{"g.bias": (3, C)}), sizes


def ConditionedMamba_example(rng: np.random.Generator, T: int) -> Example:
    C, params, sizes = _conditioned(rng, T, 3)
    return draws(rng, x=(T, C), e=(3,)), params, sizes


def swapped_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in "qkv")
    o = np.zeros_like(q)
    for r in range(2):
        for h in range(q.shape[2]):
            scores = q[:, r, h] @ k[:, 1 - r, h].T / np.sqrt(q.shape[3])
            o[:, r, h] = softmax(scores) @ v[:, 1 - r, h]
    return {"o": o}


def swapped_attention_example(rng: np.random.Generator, T: int) -> Example:
    shape = (T, 2, 2, 3)
    return draws(rng, q=shape, k=shape, v=shape), {}, {}


def _ordered(bands: Array) -> Array:
    return bands.reshape(-1, bands.shape[-1])


def DiMSUM(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, e = inputs["x"], inputs["e"]
    rows, columns, C = x.shape
    half = C // 2
    pixels = x[:, :, :half].reshape(-1, half)
    first = ConditionedMamba({"x": pixels, "e": e}, under(params, "first"), {})["y"]
    bands = subbands({"x": x[:, :, half:]}, {}, {})["y"]
    second = ConditionedMamba({"x": _ordered(bands), "e": e}, under(params, "second"), {})["y"]
    image = unsubbands({"y": second.reshape(bands.shape)}, {}, {})["x"].reshape(-1, half)
    both = (first, image)
    q, k, v = (
        np.stack([np.tensordot(both[r], params[f"{name}.weight"][r], axes=1) for r in range(2)], axis=1)
        for name in ("q", "k", "v_")
    )
    o = swapped_attention({"q": q, "k": k, "v": v}, {}, {})["o"]
    fused = linear(o, params, "fused", 3)
    return {"y": x + fused.reshape(rows, columns, C)}


def DiMSUM_example(rng: np.random.Generator, T: int) -> Example:
    half, params, sizes = _conditioned(rng, T, 3)
    params = {f"first.{name}": value for name, value in params.items()}
    params |= {f"second.{name}": value for name, value in _conditioned(rng, T, 3)[1].items()}
    H, D, C = 2, half // 2, 2 * half
    params |= {f"{name}.weight": rng.standard_normal((2, half, H, D)) / 2 for name in ("q", "k", "v_")}
    rows = 4 * -(-T // 8)
    return draws(rng, x=(rows, 4, C), e=(3,)), params | weights(rng, 3, fused=(2, H, D, C)), sizes | {"H": H}
