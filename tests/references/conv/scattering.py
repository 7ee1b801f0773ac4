"""A dual-tree complex wavelet transform by explicit mirrored images, its inverse, and what is mixed between."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, complex_draw, draws

H0 = np.array([-0.0017578125, 0, 0.022265625, -0.046875, -0.0482421875, 0.296875, 0.55546875])
G0 = np.array([81, 0, -1539, -2160, 8208, 27360, -63816, -59280, 343786, 641600]) / 1146880
H0, G0 = (np.concatenate([half, half[-2::-1]]) for half in (H0, G0))
QUAD = ((0, 0), (0, 1), (1, 0), (1, 1))


def _filtered(x: Array, w: Array, axis: int) -> Array:
    """A long enough image, mirrored again and again, then cut."""
    n, reach = x.shape[axis], len(w) // 2
    there_and_back = np.concatenate([x, np.flip(x, axis)], axis)
    places = np.arange(-reach, n + reach) % (2 * n)
    wide = np.take(there_and_back, places, axis)
    return sum(w[a] * np.take(wide, np.arange(a, a + n), axis) for a in range(len(w)))


def _signs(h0: Array, g0: Array) -> tuple[Array, Array]:
    n, m = np.arange(len(g0)), np.arange(len(h0))
    return np.where(n % 2 == 1, g0, -g0), np.where(m % 2 == 0, h0, -h0)


def dtcwt(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, h0, g0 = inputs["x"], inputs["h0"], inputs["g0"]
    h1, _ = _signs(h0, g0)
    lo, hi = _filtered(x, h0, 1), _filtered(x, h1, 1)
    low, lh, hl, hh = _filtered(lo, h0, 0), _filtered(lo, h1, 0), _filtered(hi, h0, 0), _filtered(hi, h1, 0)
    first, second = [], []
    for band in (lh, hh, hl):
        a, b, c, d = (band[m::2, n::2] for m, n in QUAD)
        first.append((a - d + 1j * (b + c)) / np.sqrt(2))
        second.append((a + d + 1j * (b - c)) / np.sqrt(2))
    bands = np.stack([*first, *second[::-1]], axis=-1)
    return {"low": low, "high": np.stack([bands.real, bands.imag], axis=-1)}


def dtcwt_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(2 * T, 4, 3), h0=(5,), g0=(7,)), {}, {}


def inverse_dtcwt(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    low, high, h0, g0 = (inputs[name] for name in ("low", "high", "h0", "g0"))
    _, g1 = _signs(h0, g0)
    bands = high[..., 0] + 1j * high[..., 1]
    images = []
    for s in range(3):
        z, w = bands[..., s], bands[..., 5 - s]
        image = np.zeros_like(low)
        parts = (z.real + w.real, z.imag + w.imag, z.imag - w.imag, w.real - z.real)
        for (m, n), part in zip(QUAD, parts, strict=True):
            image[m::2, n::2] = part / np.sqrt(2)
        images.append(image)
    lh, hh, hl = images
    hi, lo = _filtered(hh, g1, 0) + _filtered(hl, g0, 0), _filtered(lh, g1, 0) + _filtered(low, g0, 0)
    return {"x": _filtered(hi, g1, 1) + _filtered(lo, g0, 1)}


def inverse_dtcwt_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, low=(2 * T, 4, 3), high=(T, 2, 3, 6, 2), h0=(5,), g0=(7,)), {}, {}


def round_trip(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    filters = {"h0": H0, "g0": G0}
    return {"y": inverse_dtcwt({**dtcwt(inputs | filters, {}, {}), **filters}, {}, {})["x"]}


def round_trip_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, x=(2 * T, 6, 2)), {}, {}


def SVT(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    filters = {"h0": H0, "g0": G0}
    taken = dtcwt(inputs | filters, {}, {})
    bands = taken["high"][..., 0] + 1j * taken["high"][..., 1]
    width = bands.shape[2] // 4
    mixed = np.zeros_like(bands)
    for k in range(4):
        block = slice(k * width, (k + 1) * width)
        X = np.moveaxis(bands[:, :, block], 2, -1)
        hidden = X @ params["A"][0, k] + params["B"][0, k]
        hidden = np.maximum(hidden.real, 0) + 1j * np.maximum(hidden.imag, 0)
        mixed[:, :, block] = np.moveaxis(hidden @ params["A"][1, k] + params["B"][1, k], -1, 2)
    high = np.stack([mixed.real, mixed.imag], axis=-1)
    return {"y": inverse_dtcwt({"low": params["G"] * taken["low"], "high": high, **filters}, {}, {})["x"]}


def SVT_example(rng: np.random.Generator, T: int) -> Example:
    rows, columns, C = 2 * T, 4, 8
    params = {"A": complex_draw(rng, 2, 4, C // 4, C // 4), "B": complex_draw(rng, 2, 4, C // 4)}
    return draws(rng, x=(rows, columns, C)), params | draws(rng, G=(rows, columns, C)), {}


def band_mixing(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    bands = inputs["high"][..., 0] + 1j * inputs["high"][..., 1]
    mixed = np.stack([np.tensordot(A, row, axes=(0, 0)) for A, row in zip(inputs["A"], bands, strict=True)])
    return {"mixed": np.stack([mixed.real, mixed.imag], axis=-1)}


def band_mixing_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, high=(T, 3, 2, 6, 2)) | {"A": complex_draw(rng, T, 3, 3)}, {}, {}
