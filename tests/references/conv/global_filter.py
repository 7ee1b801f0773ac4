"""A filter in the Fourier domain, by explicit transforms; and the GFNet block."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, complex_draw, draws, gelu, layer_norm, linear, weights


def global_filter(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """The half spectrum is completed by conjugates, so that the answer is real: K at (-u, -f) is that at (u, f)."""
    x, K = inputs["x"], inputs["K"]
    rows, columns = x.shape[:2]
    whole = np.zeros(x.shape, complex)
    for u in range(rows):
        for f in range(columns):
            stored = K[u, f] if f <= columns // 2 else K[-u % rows, columns - f].conj()
            if f == -f % columns:   # the columns that are their own mirror: only the Hermitian part counts
                stored = (K[u, f] + K[-u % rows, f].conj()) / 2
            whole[u, f] = stored
    to_rows, to_columns = (np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in (rows, columns))
    spectrum = np.einsum("ui,ijc,fj->ufc", to_rows, x, to_columns) * whole
    y = np.einsum("ui,ufc,fj->ijc", to_rows.conj(), spectrum, to_columns.conj()) / (rows * columns)
    assert np.abs(y.imag).max(initial=0) < 1e-10
    return {"y": y.real}


def global_filter_example(rng: np.random.Generator, T: int) -> Example:
    columns, C = 4, 3
    return draws(rng, x=(T, columns, C)) | {"K": complex_draw(rng, T, columns // 2 + 1, C)}, {}, {}


circular_filter, circular_filter_example = global_filter, global_filter_example


def GFNet(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x, (first, second), (low, high) = inputs["x"], params["scale"], params["shift"]
    filtered = global_filter({"x": first * layer_norm(x) + low, "K": params["K"]}, {}, {})["y"]
    hidden = gelu(linear(second * layer_norm(filtered) + high, params, "hid"))
    return {"y": x + linear(hidden, params, "y")}


def GFNet_example(rng: np.random.Generator, T: int) -> Example:
    columns, C, F = 5, 3, 6
    params = weights(rng, hid=(C, F), y=(F, C)) | draws(rng, scale=(2, C), shift=(2, C))
    params |= {"hid.bias": rng.standard_normal(F), "y.bias": rng.standard_normal(C)}
    return draws(rng, x=(T, columns, C)), params | {"K": complex_draw(rng, T, columns // 2 + 1, C)}, {"F": F}
