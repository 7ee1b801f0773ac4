"""Combiner, query by query: groups of (scores, values) under one softmax, the spans summarised first."""

from __future__ import annotations

import numpy as np

from ..numerics import Array, Example, Sizes, Tensors, draws, softmax


def summary(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """The key and the value of a span: the largest entries, and an attention of the span to itself."""
    asked = softmax(k @ q.max(axis=0) / np.sqrt(q.shape[1]))
    return k.max(axis=0), asked @ v


def answer(q: Array, keys: list[Array], values: list[Array]) -> Array:
    return softmax(np.array(keys) @ q / np.sqrt(len(q))) @ np.array(values)


def _with_spans(inputs: Tensors, spans_of: object) -> Tensors:
    """Each query sees itself and others directly, and spans [start, end) by their summaries."""
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    o = np.zeros((*q.shape[:2], v.shape[2]))
    for t in range(len(q)):
        direct, spans = spans_of(t)
        for h in range(q.shape[1]):
            keys, values = [k[s, h] for s in direct], [v[s, h] for s in direct]
            for start, end in spans:
                key, value = summary(*(x[start:end, h] for x in (q, k, v)))
                keys.append(key)
                values.append(value)
            o[t, h] = answer(q[t, h], keys, values)
    return {"o": o}


def combiner(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    L = sizes["L"]

    def spans_of(t: int) -> tuple[range, list[tuple[int, int]]]:
        own = t // L
        return range(own * L, t + 1), [(r * L, (r + 1) * L) for r in range(own)]

    return _with_spans(inputs, spans_of)


def combiner_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 5), k=(T, 2, 5), v=(T, 2, 3)), {}, {"L": 4}


def combiner_logsparse(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    def spans_of(t: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Go back from t, each time by the lowest binary digit that is left."""
        spans, end = [], t
        while end:
            length = end & -end
            spans.append((end - length, end))
            end -= length
        return [t], spans

    return _with_spans(inputs, spans_of)


def combiner_logsparse_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 2, 5), k=(T, 2, 5), v=(T, 2, 3)), {}, {"N": 7}


def combiner_axial(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    rows, columns, H, D = q.shape
    o = np.zeros((rows, columns, H, v.shape[3]))
    for x, y, h in np.ndindex(rows, columns, H):
        keys, values = [k[x, c, h] for c in range(y + 1)], [v[x, c, h] for c in range(y + 1)]
        for u in range(x):
            keys.append(k[u, y, h])
            values.append(softmax(k[u, :, h] @ q[u, y, h] / np.sqrt(D)) @ v[u, :, h])
        o[x, y, h] = answer(q[x, y, h], keys, values)
    return {"o": o}


def combiner_axial_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 2, 5), k=(T, 3, 2, 5), v=(T, 3, 2, 4)), {}, {}
