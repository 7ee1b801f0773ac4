"""Convolutional recurrent networks, pixel by pixel: ConvGRU on a circle, RecurrentVarNet, LRCN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, complex_draw, draws, linear, sigmoid, softmax, under, weights
from .lstm import lstm

Place = Callable[[int, int], int]


def _circle(i: int, n: int) -> int:
    return i % n


def _edge(i: int, n: int) -> int:
    return min(max(i, 0), n - 1)


def _conv(x: Array, params: Tensors, name: str, place: Place | None = None) -> Array:
    """A convolution in space, centred; `place` says what stands outside (without it: zeros)."""
    weight = params[f"{name}.weight"]
    rows, columns = x.shape[:2]
    y = np.zeros((rows, columns, weight.shape[3])) + params.get(f"{name}.bias", 0.0)
    for i in range(rows):
        for j in range(columns):
            for p in range(weight.shape[0]):
                for q in range(weight.shape[1]):
                    a, b = i + p - weight.shape[0] // 2, j + q - weight.shape[1] // 2
                    if place is not None:
                        y[i, j] += x[place(a, rows), place(b, columns)] @ weight[p, q]
                    elif 0 <= a < rows and 0 <= b < columns:
                        y[i, j] += x[a, b] @ weight[p, q]
    return y


def conv_gru(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    frames, states = inputs["x"], []
    h = np.zeros((*frames.shape[1:3], sizes["N"]))
    for x in frames:
        update, reset = (
            sigmoid(_conv(x, params, name, _circle) + _conv(h, params, f"{name}_2", _circle)) for name in "zr"
        )
        candidate = np.tanh(_conv(x, params, "g", _circle) + _conv(reset * h, params, "g_2", _circle))
        h = (1 - update) * h + update * candidate
        states.append(h)
    return {"h": np.array(states)}


def conv_gru_example(rng: np.random.Generator, T: int) -> Example:
    C, N, w = 2, 3, 3
    params = weights(rng, 3, **{f"{g}": (w, w, C, N) for g in "zrg"}, **{f"{g}_2": (w, w, N, N) for g in "zrg"})
    params |= {f"{g}.bias": rng.standard_normal(N) for g in "zrg"}
    return draws(rng, x=(T, 4, 3, C)), params, {"N": N, "w": w}


def _step(params: Tensors, s: int) -> Tensors:
    return {name: value[s] for name, value in params.items() if name != "rate"}


def RecurrentVarNet(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    measured, sens, mask = inputs["y0"], inputs["sens"], inputs["mask"]
    y, h = measured, np.zeros((*mask.shape, sizes["N"]))
    for s in range(sizes["S"]):
        own = _step(params, s)
        joined = (sens.conj() * np.fft.ifft2(y, axes=(1, 2))).sum(axis=0)
        x = np.maximum(_conv(np.stack([joined.real, joined.imag], axis=-1), own, "x", _edge), 0)
        update, reset = (sigmoid(linear(x, own, name) + linear(h, own, f"{name}_2")) for name in "zr")
        candidate = np.tanh(linear(x, own, "g") + linear(reset * h, own, "g_2"))
        h = (1 - update) * h + update * candidate
        e = _conv(np.maximum(h, 0), own, "e", _edge)
        correction = np.fft.fft2(sens * (e[..., 0] + 1j * e[..., 1]), axes=(1, 2))
        y = y - params["rate"][s] * mask * (y - measured) + correction
    return {"out": np.stack([y.real, y.imag], axis=-1)}


def RecurrentVarNet_example(rng: np.random.Generator, T: int) -> Example:
    coils, columns, S, N, w = 2, 3, 2, 3, 3
    rows = T
    inputs = {"y0": complex_draw(rng, coils, rows, columns), "sens": complex_draw(rng, coils, rows, columns)}
    params = {"rate": rng.uniform(0.5, 1, S), "x.weight": rng.standard_normal((S, w, w, 2, N)) / 4}
    params |= {"e.weight": rng.standard_normal((S, w, w, N, 2)) / 8, "e.bias": rng.standard_normal((S, 2))}
    params |= {f"{name}.weight": rng.standard_normal((S, N, N)) / 2 for name in ("z", "z_2", "r", "r_2", "g", "g_2")}
    params |= {f"{name}.bias": rng.standard_normal((S, N)) for name in "xzrg"}
    return inputs | {"mask": rng.uniform(0, 1, (rows, columns)).round()}, params, {"S": S, "N": N, "w": w}


def LRCN(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    features = [np.maximum(_conv(x, params, "z"), 0).mean(axis=(0, 1)) for x in inputs["x"]]
    hidden = lstm({"x": np.array(features)}, under(params, "h"), {})["h"]
    return {"p": softmax(linear(hidden, params, "score"))}


def LRCN_example(rng: np.random.Generator, T: int) -> Example:
    C, F, N, V, w = 2, 3, 4, 5, 3
    params = weights(rng, 3, z=(w, w, C, F)) | weights(rng, score=(N, V))
    params |= {"z.bias": rng.standard_normal(F), "score.bias": rng.standard_normal(V)}
    for name in "ifgu":
        params |= weights(rng, **{f"h.{name}": (F, N), f"h.{name}_2": (N, N)})
        params |= {f"h.{name}.bias": rng.standard_normal(N), f"h.{name}_2.bias": rng.standard_normal(N)}
    return draws(rng, x=(T, 4, 3, C)), params, {"F": F, "N": N, "V": V, "w": w}
