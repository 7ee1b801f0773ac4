"""FiTv2: two-dimensional rotations by complex numbers, and attention inside segments; segment 0 is padding."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, layer_norm, linear, silu, softmax, weights


def rotated(x: Array, row: Array, col: Array) -> Array:
    """Interleaved pairs as complex numbers; the first half of them turn with the row."""
    pairs = x.shape[-1] // 2
    z = x[..., 0::2] + 1j * x[..., 1::2]
    for m in range(pairs):
        place, n = (row, m) if m < pairs // 2 else (col, m - pairs // 2)
        z[..., m] *= np.exp(1j * place * 10000 ** (-2 * n / pairs))[:, None]
    y = np.zeros_like(x)
    y[..., 0::2], y[..., 1::2] = z.real, z.imag
    return y


def packed(q: Array, k: Array, v: Array, row: Array, col: Array, seg: Array) -> Array:
    q, k = rotated(q, row, col), rotated(k, row, col)
    o = np.zeros((*q.shape[:2], v.shape[-1]))
    for n in range(len(q)):
        seen = [m for m in range(len(q)) if seg[n] == seg[m] > 0]
        for h in range(q.shape[1] if seen else 0):
            o[n, h] = softmax(k[seen, h] @ q[n, h] / np.sqrt(q.shape[-1])) @ v[seen, h]
    return o


def packed_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": packed(*(inputs[name] for name in ("q", "k", "v", "row", "col", "seg")))}


def places(rng: np.random.Generator, T: int) -> Tensors:
    """Row and column in pictures of 3 columns, and segments with padding."""
    t = np.arange(T)
    return {"row": t // 3 * 1.0, "col": t % 3 * 1.0, "seg": rng.integers(0, 3, T)}


def packed_attention_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 8), k=(T, 2, 8), v=(T, 2, 3)) | places(rng, T), {}, {}


padded_attention = packed_attention
padded_attention_example = packed_attention_example


def FiTBlock(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    s = linear(linear(silu(inputs["z"]), params, "low"), params, "s") + inputs["shared"]
    u = layer_norm(x) * (1 + s[1]) + s[0]
    q, k, v = (linear(u, params, name) for name in "qkv")
    o = packed(layer_norm(q), layer_norm(k), v, inputs["row"], inputs["col"], inputs["seg"])
    a = x + s[2] * linear(o, params, "a", 2)
    w = layer_norm(a) * (1 + s[4]) + s[3]
    return {"y": a + s[5] * linear(silu(linear(w, params, "f")) * linear(w, params, "f_2"), params, "y")}


def FiTBlock_example(rng: np.random.Generator, T: int) -> Example:
    C, B, H, D, R, M = 4, 3, 2, 4, 2, 5
    params = weights(rng, low=(B, R), s=(R, 6, C), q=(C, H, D), k=(C, H, D), v=(C, H, D), f=(C, M), f_2=(C, M), y=(M, C))
    params |= weights(rng, 2, a=(H, D, C)) | draws(rng, **{"low.bias": (R,), "s.bias": (6, C), "a.bias": (C,)})
    inputs = draws(rng, x=(T, C), z=(B,), shared=(6, C)) | places(rng, T)
    return inputs, params, {"H": H, "D": D, "R": R, "M": M}
