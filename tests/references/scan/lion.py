"""LION: each group of voxels through a linear RNN of its own, and back to the voxels' places."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..memory import ttt_layers
from ..numerics import Array, Example, Sizes, Tensors, draws, layer_norm, under
from . import mlstm, retention, rwkv6, vision_mamba
from .grouped_rnn import group


def inside(x: Array, key: Array, G: int, rnn: Callable[[Array], Array]) -> Array:
    """The RNN over each group of full length, its outputs back at the tokens' own places."""
    grouped = group({"x": x, "key": key}, {}, {"G": G})
    o = np.concatenate([rnn(tokens) for tokens in grouped["z"]])
    return o[grouped["place"].astype(int)]


def hosted(rnn: Callable[..., Tensors], x: str, y: str, **sizes: int) -> Callable[..., Tensors]:
    """The mixer that hosts a layer of the library under the name `o`."""

    def mixer(inputs: Tensors, params: Tensors, options: Sizes) -> Tensors:
        def run(tokens: Array) -> Array:
            return rnn({x: tokens}, under(params, "o"), sizes)[y]

        return {"y": inside(inputs["x"], inputs["key"], options["G"], run)}

    return mixer


def hosts(rng: np.random.Generator, T: int, **shapes: tuple[int, ...]) -> Example:
    """Eight channels; the parameters have the shapes that the layer's default sizes give them."""
    params = {f"o.{name}": 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}
    return draws(rng, x=(T, 8)) | {"key": rng.permutation(3 * T)[:T]}, params, {"G": 5}


LionRetention = hosted(retention.Retention, "x", "y")

LionMamba = hosted(vision_mamba.Vim, "u", "out")

LionRWKV = hosted(rwkv6.RWKV6, "x", "y")

LionMLSTM = hosted(mlstm.MLSTM, "x", "y")

LionTTT = hosted(ttt_layers.TTTLinear, "x", "y", M=16)


def matrices(**shapes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape for name, shape in shapes.items()}


def LionRetention_example(rng: np.random.Generator, T: int) -> Example:
    return hosts(rng, T, **matrices(a=(8, 4, 2), b=(8, 4, 2), v=(8, 4, 4), gate=(8, 4, 4), y=(4, 4, 8)))


def vim_shapes() -> dict[str, tuple[int, ...]]:
    shapes = matrices(xin=(8, 16), z=(8, 16), out=(16, 8), low=(2, 16, 1), B=(2, 16, 16), C=(2, 16, 16), dt=(2, 1, 16))
    return shapes | {"w": (2, 4, 16), "b": (2, 16), "A_log": (2, 16, 16), "dt_bias": (2, 16), "skip": (2, 16)}


def LionMamba_example(rng: np.random.Generator, T: int) -> Example:
    return hosts(rng, T, **vim_shapes())


def LionRWKV_example(rng: np.random.Generator, T: int) -> Example:
    heads = dict.fromkeys("kvrg", (8, 2, 4))
    shapes = matrices(mix=(8, 5, 32), lw=(8, 64), w=(64, 2, 4), y=(2, 4, 8), **heads)
    shapes |= {"mx": (8,), "mu": (5, 8), "w2": (5, 32, 8), "w0": (2, 4), "u": (2, 4)}
    inputs, params, sizes = hosts(rng, T, **shapes)
    return inputs, params, sizes | {"H": 2}


def LionMLSTM_example(rng: np.random.Generator, T: int) -> Example:
    H, E = 4, 4
    gates = dict.fromkeys(("i", "i_2", "i_3", "f", "f_2", "f_3"), (H, E, H))
    shapes = matrices(a=(8, H, E), gate=(8, H, E), q=(H, E, E), k=(H, E, E), v=(H, E, E), y=(H, E, 8), **gates)
    return hosts(rng, T, **shapes, w=(4, H, E), b=(H, E), bi=(H,), bf=(H,), skip=(H, E))


def LionTTT_example(rng: np.random.Generator, T: int) -> Example:
    H, D = 4, 2
    shapes = matrices(a=(8, H, D), b=(8, H, D), v=(8, H, D), lr=(8, H), y=(H, D, 8)) | {"lr.bias": (H,), "learn": (16,)}
    shapes |= dict.fromkeys(("bs", "gamma", "beta", "norm", "norm_bias"), (H, D)) | {"Ws": (H, D, D)}
    return hosts(rng, T, **shapes)


def LION(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    for part, order in (("a", "along_x"), ("b", "along_y")):
        x = x + LionMamba({"x": layer_norm(x), "key": inputs[order]}, under(params, part), sizes)["y"]
    return {"y": x}


def LION_example(rng: np.random.Generator, T: int) -> Example:
    inputs, params, sizes = LionMamba_example(rng, T)
    keys = {name: rng.permutation(3 * T)[:T] for name in ("along_x", "along_y")}
    both = {f"{part}.{name}": value + 0.1 * (part == "b") for part in "ab" for name, value in params.items()}
    return {"x": inputs["x"], **keys}, both, sizes
