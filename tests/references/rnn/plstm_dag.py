"""pLSTM on a graph: nodes in order, each with a list of the edges that enter it."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws


def plstm_dag(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, src, dst = (inputs[name] for name in ("q", "k", "v", "src", "dst"))
    outer = np.einsum("nhd,nhe->nhde", k, v)
    carried: list[np.ndarray] = []
    for a, start in enumerate(src):
        cell = inputs["S"][a][:, None, None] * outer[start]
        for b in range(a):
            if dst[b] == start:
                cell = cell + inputs["T"][a, b][:, None, None] * carried[b]
        carried.append(cell)
    read = inputs["direct"][:, :, None, None] * outer
    for a, end in enumerate(dst):
        read[end] += inputs["M"][a][:, None, None] * carried[a]
    return {"o": np.einsum("nhd,nhde->nhe", q, read)}


def plstm_dag_example(rng: np.random.Generator, T: int) -> Example:
    """T nodes, and about two edges for each, sorted by the node that they leave."""
    H, D, E = 2, 3, 2
    edges = sorted((int(n), int(rng.integers(n + 1, T))) for n in rng.integers(0, T, 2 * T) if n + 1 < T)
    src, dst = (np.array([edge[k] for edge in edges], int) for k in (0, 1))
    A = len(edges)
    inputs = draws(rng, q=(T, H, D), k=(T, H, D), v=(T, H, E), S=(A, H), M=(A, H), direct=(T, H))
    return inputs | {"src": src, "dst": dst, "T": rng.uniform(-0.7, 0.7, (A, A, H))}, {}, {}


plstm_dag_dense, plstm_dag_dense_example = plstm_dag, plstm_dag_example


def propagation(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    r, src, dst = inputs["r"], inputs["src"], inputs["dst"]
    shares = np.zeros_like(r)
    for b in range(len(dst)):
        on = np.flatnonzero(src == dst[b])
        shares[on, b] = r[on, b] / (0.5 + np.abs(r[on, b]).sum(axis=0))
    return {"T": shares}


def propagation_example(rng: np.random.Generator, T: int) -> Example:
    drawn, _, _ = plstm_dag_example(rng, T)
    return {"r": drawn["T"], "src": drawn["src"], "dst": drawn["dst"]}, {}, {}
