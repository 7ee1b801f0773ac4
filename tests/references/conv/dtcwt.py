"""A dual-tree complex wavelet transform by explicit mirrored images, and its inverse."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws

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
