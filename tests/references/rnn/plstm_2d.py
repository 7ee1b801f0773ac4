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


plstm_grid_as_dag, plstm_grid_as_dag_example = plstm_2d, plstm_2d_example


def plstm_2d_p(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    writes, passes, m = inputs["p"] * inputs["s"], inputs["p"] * inputs["t"], inputs["m"]
    gates = {"sr": writes, "sd": 1 - writes, "trl": passes, "tru": passes, "tdl": 1 - passes, "tdu": 1 - passes}
    return plstm_2d(inputs | gates | {"ml": m, "mu": m}, {}, {})


def plstm_2d_p_example(rng: np.random.Generator, T: int) -> Example:
    inputs, _, _ = plstm_2d_example(rng, T)
    gates = {name: rng.uniform(0, 1, inputs["sr"].shape) for name in "pstm"}
    return {**{name: inputs[name] for name in ("q", "k", "v", "direct")}, **gates}, {}, {}


def plstm_2d_mass(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    """Carried cell by cell: each edge holds what its cell lets through and writes."""
    p, s, t = (inputs[name] for name in "pst")
    rows, columns, heads = p.shape
    right, down = np.zeros((2, rows + 1, columns + 1, heads))
    for x in range(rows):
        for y in range(columns):
            enters = right[x, y + 1] + down[x + 1, y]
            right[x + 1, y + 1] = p[x, y] * (t[x, y] * enters + s[x, y])
            down[x + 1, y + 1] = enters + 1 - right[x + 1, y + 1]
    return {"out": right[rows, 1:].sum(axis=0) + down[1:, columns].sum(axis=0)}


def plstm_2d_mass_example(rng: np.random.Generator, T: int) -> Example:
    return {name: rng.uniform(0, 1, (T, 3, 2)) for name in "pst"}, {}, {}


def plstm_2d_d(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return plstm_2d(inputs | {"tdl": np.zeros_like(inputs["trl"])}, {}, {})


def plstm_2d_d_example(rng: np.random.Generator, T: int) -> Example:
    inputs, _, _ = plstm_2d_example(rng, T)
    return {name: value for name, value in inputs.items() if name != "tdl"}, {}, {}
