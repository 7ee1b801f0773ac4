"""MatFormer: a gated feed-forward layer, and the one of its first hidden units."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws, silu


def gated_ffn(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, wg, wu, wd = (inputs[name] for name in ("x", "wg", "wu", "wd"))
    return {"y": (silu(x @ wg.T) * (x @ wu.T)) @ wd}


def gated_ffn_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(T, 4), wg=(6, 4), wu=(6, 4), wd=(6, 4)), {}, {}


def nested_ffn(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    sliced = {name: inputs[name][: sizes["M"]] for name in ("wg", "wu", "wd")}
    return gated_ffn({"x": inputs["x"], **sliced}, {}, {})


def nested_ffn_example(rng: np.random.Generator, T: int) -> Example:
    return gated_ffn_example(rng, T)[0], {}, {"M": 3}
