"""TCNCA: a dilated convolution network before MEGA's gated chunks, token by token."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, rms_norm, silu, under
from .mega import below, chunk_params


def dilated(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    z = inputs["x"]
    for n in range(sizes["L"]):
        filtered = np.zeros_like(z) + params["offset"][n]
        for t in range(len(z)):
            for j in range(sizes["K"]):
                if t >= 2**n * j:
                    filtered[t] += params["taps"][n, j] * z[t - 2**n * j]
        z = z + silu(filtered)
    return {"y": z}


def dilated_example(rng: np.random.Generator, T: int) -> Example:
    C, L, K = 4, 3, 2
    return draws(rng, x=(T, C)), draws(rng, taps=(L, K, C), offset=(L, C)), {"L": L, "K": K}


def TCNCA(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    m = dilated({"x": rms_norm(inputs["x"])}, under(params, "m"), sizes)["y"]
    return below(inputs["x"], m, params, sizes)


def TCNCA_example(rng: np.random.Generator, T: int) -> Example:
    C, sizes = 4, {"L": 3, "K": 2, "E": 6, "Z": 3, "w": 5}
    params = {f"y.{name}": value for name, value in chunk_params(rng, C, sizes).items()}
    return draws(rng, x=(T, C)), params | draws(rng, **{"m.taps": (3, 2, C), "m.offset": (3, C)}), sizes
