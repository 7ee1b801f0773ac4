"""SN-Netv2: a linear map with a low-rank correction, fitted by least squares."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws


def stitch(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, W, b, A, B = (inputs[name] for name in ("x", "W", "b", "A", "B"))
    return {"y": x @ (W + inputs["alpha"] / len(B) * A @ B) + b}


def stitch_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4), W=(4, 3), b=(3,), A=(4, 2), B=(2, 3)) | {"alpha": np.array(1.5)}, {}, {}


def stitch_fit(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The ridge as further rows, so that least squares are all there is."""
    x1, x2 = inputs["x1"], inputs["x2"]
    rows = np.concatenate([x1, 1e-3 * np.eye(x1.shape[1])])
    return {"W": np.linalg.lstsq(rows, np.concatenate([x2, np.zeros((x1.shape[1], x2.shape[1]))]), rcond=None)[0]}


def stitch_fit_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x1=(T + 3, 4), x2=(T + 3, 3)), {}, {}


def Stitch(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return stitch({"x": inputs["x"], "alpha": np.array(8.0), **params}, {}, {})


def Stitch_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4)), draws(rng, W=(4, 3), b=(3,), A=(4, 2), B=(2, 3)), {"E": 3, "R": 2}
