"""OctGPT: windows of a z-order by labels; a node sees those of its octree that are not deeper; and masked prediction."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, linear, rms_norm, softmax, weights


def windowed(q: Array, k: Array, v: Array, depth: Array, seg: Array, sizes: Sizes) -> Array:
    K, far, shift = sizes["K"], sizes["dilation"], sizes["shift"]
    label = [((t + shift) // (K * far), (t + shift) % far) for t in range(len(q))]
    o = np.zeros((*q.shape[:2], v.shape[-1]))
    for t in range(len(q)):
        seen = [s for s in range(len(q)) if label[s] == label[t] and seg[s] == seg[t] and depth[s] <= depth[t]]
        for h in range(q.shape[1]):
            o[t, h] = softmax(k[seen, h] @ q[t, h] / np.sqrt(q.shape[-1])) @ v[seen, h]
    return o


def octree_attention(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"o": windowed(*(inputs[name] for name in ("q", "k", "v", "depth", "seg")), sizes)}


def nodes(rng: np.random.Generator, T: int) -> Tensors:
    return {"depth": rng.integers(0, 3, T), "seg": np.arange(T) // 7}


def octree_attention_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, q=(T, 2, 3), k=(T, 2, 3), v=(T, 2, 4)) | nodes(rng, T)
    return inputs, {}, {"K": 3, "dilation": 2, "shift": 1}


def placed(x: Array, at: Array, freq: Array) -> Array:
    """Interleaved pairs as complex numbers, turned by all coordinates."""
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * np.einsum("tz,hfz->thf", at, freq))
    y = np.zeros_like(x)
    y[..., 0::2], y[..., 1::2] = z.real, z.imag
    return y


def OctreeBlock(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    w = np.where(inputs["rank"][:, None] < sizes["known"], inputs["x"], params["unknown"])
    n = rms_norm(w)
    q, k = (placed(linear(n, params, name), inputs["at"], params["freq"]) for name in "qk")
    u = w + linear(windowed(q, k, linear(n, params, "v"), inputs["depth"], inputs["seg"], sizes), params, "u", 2)
    return {"y": u + linear(gelu(linear(rms_norm(u), params, "f1")), params, "y")}


def OctreeBlock_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, M = 4, 2, 4, 5
    params = weights(rng, q=(C, H, D), k=(C, H, D), v=(C, H, D), f1=(C, M), y=(M, C)) | weights(rng, 2, u=(H, D, C))
    params |= draws(rng, unknown=(C,), freq=(H, D // 2, 3))
    inputs = draws(rng, x=(T, C), at=(T, 3)) | nodes(rng, T) | {"rank": rng.permutation(T)}
    return inputs, params, {"H": H, "D": D, "K": 3, "dilation": 2, "shift": 1, "known": 3, "M": M}
