"""pLSTM on a grid as one linear system over all its edges, C = T C + S k v, solved densely: no order of the cells."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws

TRANSITIONS = ("trl", "tru", "tdl", "tdu")


def plstm_2d(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in "qkv")
    rows, columns, heads, keys = q.shape
    cells = rows * columns
    output = np.zeros((rows, columns, heads, v.shape[-1]))
    for h in range(heads):
        pairs = np.einsum("xyd,xye->xyde", k[:, :, h], v[:, :, h]).reshape(cells, keys, -1)
        through, entering = np.zeros((2 * cells, 2 * cells)), np.zeros((cells, 2 * cells))
        for x in range(rows):
            for y in range(columns):
                here, left, above = x * columns + y, (x - 1) * columns + y, x * columns + y - 1
                rl, ru, dl, du = (inputs[name][x, y, h] for name in TRANSITIONS)
                if x:  # the edge R of the cell before along x
                    through[here, left], through[cells + here, left] = rl, dl
                    entering[here, left] = inputs["ml"][x, y, h]
                if y:  # the edge D of the cell before along y
                    through[here, cells + above], through[cells + here, cells + above] = ru, du
                    entering[here, cells + above] = inputs["mu"][x, y, h]
        source = np.concatenate([inputs[name][:, :, h].reshape(cells, 1, 1) * pairs for name in ("sr", "sd")])
        edges = np.linalg.solve(np.eye(2 * cells) - through, source.reshape(2 * cells, -1)).reshape(source.shape)
        read = np.tensordot(entering, edges, 1) + inputs["direct"][:, :, h].reshape(cells, 1, 1) * pairs
        output[:, :, h] = np.einsum("nd,nde->ne", q[:, :, h].reshape(cells, keys), read).reshape(rows, columns, -1)
    return {"o": output / np.sqrt(keys)}


def plstm_2d_example(rng: np.random.Generator, T: int) -> Example:
    Y, H, D, E = 3, 2, 3, 2
    inputs = draws(rng, q=(T, Y, H, D), k=(T, Y, H, D), v=(T, Y, H, E))
    gates = {name: rng.uniform(0, 1, (T, Y, H)) for name in ("sr", "sd", "ml", "mu", "direct")}
    return {**inputs, **gates, **{name: rng.uniform(-0.5, 0.5, (T, Y, H)) for name in TRANSITIONS}}, {}, {}
