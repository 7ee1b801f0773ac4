"""RGT: a strided depthwise convolution applied over and over, and attention of all tokens to what is left."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, gelu, layer_norm, linear, softmax, weights


def reduced(x: Array, k: Array, b: Array, T: int) -> Array:
    w = len(k)
    for _ in range(T):
        rows, columns = x.shape[0] // w, x.shape[1] // w
        y = np.zeros((rows, columns, x.shape[2]))
        for r in range(rows):
            for s in range(columns):
                y[r, s] = b + (k * x[r * w : (r + 1) * w, s * w : (s + 1) * w]).sum(axis=(0, 1))
        x = y
    return x


def recursive_generalization(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return {"y": reduced(inputs["x"], inputs["k"], inputs["b"], sizes["T"])}


def recursive_generalization_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T + 4, 5, 3), k=(2, 2, 3), b=(3,)), {}, {"w": 2, "T": 2}


recursive_generalization_fused = recursive_generalization
recursive_generalization_fused_example = recursive_generalization_example


def depthwise(x: Array, kernel: Array) -> Array:
    """3 x 3 over the first two axes, zeros outside; a kernel for each of the rest."""
    padded = np.pad(x, [(1, 1), (1, 1)] + [(0, 0)] * (x.ndim - 2))
    y = np.zeros_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = (kernel * padded[i : i + 3, j : j + 3]).sum(axis=(0, 1))
    return y


def RGSA(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    z = layer_norm(x)
    few = depthwise(reduced(z, params["kernel"], params["b"], sizes["T"]), params["near"])
    R = gelu(layer_norm(linear(few, params, "low")))
    q, k, v = linear(z, params, "q"), linear(R, params, "k"), linear(R, params, "v")
    v = v + depthwise(v, params["own"])
    o = np.zeros((*q.shape[:3], v.shape[-1]))
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            for h in range(q.shape[2]):
                p = softmax((k[:, :, h] @ q[i, j, h]).ravel() / np.sqrt(q.shape[-1]))
                o[i, j, h] = p @ v[:, :, h].reshape(len(p), -1)
    return {"y": x + linear(o, params, "y", 2)}


def RGSA_example(rng: np.random.Generator, T: int) -> Example:
    C, H, F, D, E, w = 4, 2, 3, 2, 3, 2
    params = weights(rng, low=(C, F), q=(C, H, D), k=(F, H, D), v=(F, H, E)) | weights(rng, 2, y=(H, E, C))
    params |= draws(rng, **{"low.bias": (F,), "y.bias": (C,)}, kernel=(w, w, C), b=(C,), near=(3, 3, C), own=(3, 3, H, E))
    return draws(rng, x=(T + 4, 9, C)), params, {"H": H, "F": F, "D": D, "E": E, "w": w, "T": 2}
