"""Values of parameters for the interpreter: as given, else from their initialisers with a fixed seed.

Names are those of the generated module's state_dict: "q.weight", and "x.0.q.weight", "x.1.q.weight" for a parameter
of a call with `per`, stacked here along that index.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from seqdsl.ir.node import Node, walk
from seqdsl.ir.sizes import SizeError, Sizes
from seqdsl.ir.system import System, Tensor

Array = np.ndarray[Any, Any]
RANDOM = ("normal", "uniform", "orthogonal")


def state_names(tensor: Tensor, sizes: Sizes) -> list[tuple[tuple[int, ...], str]]:
    """(positions along the `per` indices, name) for each tensor of the state_dict that makes up a parameter."""
    markers = [p[1:-1] for p in tensor.path if p.startswith("<")]
    found = []
    for place in itertools.product(*(range(sizes[m]) for m in markers)):
        numbers = iter(place)
        found.append((place, ".".join(str(next(numbers)) if p.startswith("<") else p for p in tensor.path)))
    return found


def is_saved(tensor: Tensor) -> bool:
    """Is it in the state_dict? Parameters are, and constants that were drawn: those made from sizes are made again."""
    return tensor.kind == "param" or tensor.rhs is None or any(n.op in (*RANDOM, "read") for n in walk(tensor.rhs))


def initial_values(system: System, sizes: Sizes, given: Mapping[str, Any]) -> dict[str, Array]:
    """Every parameter and constant by its name in the system. Errors: `size-mismatch`, `unknown-parameter`."""
    values: dict[str, Array] = {}
    used: set[str] = set()
    rng = np.random.default_rng(0)
    for tensor in system.params():
        names = state_names(tensor, sizes)
        shape = tuple(sizes[i] for i in tensor.indices)
        depth = sum(p.startswith("<") for p in tensor.path)
        present = [name for _, name in names if name in given]
        if present:
            value = np.zeros(shape, np.complex128 if tensor.dtype == "complex" else np.float64)
            for place, name in names:
                if name not in given:
                    raise SizeError("missing-input", f"the parameter `{name}` is missing")
                piece = np.asarray(given[name])
                if piece.shape != shape[depth:]:
                    raise SizeError(
                        "size-mismatch", f"the parameter `{name}` has shape {piece.shape}, not {shape[depth:]}"
                    )
                value[place] = piece
            used |= set(present)
        else:
            value = _draw(system, sizes, tensor, shape, values, rng)
        values[tensor.name] = value
    unknown = sorted(set(given) - used)
    if unknown:
        raise SizeError("unknown-parameter", f"`{system.name}` has no parameter `{unknown[0]}`")
    return values


def _draw(
    system: System,
    sizes: Sizes,
    tensor: Tensor,
    shape: tuple[int, ...],
    values: dict[str, Array],
    rng: np.random.Generator,
) -> Array:
    if tensor.rhs is not None:
        return _evaluate(system, sizes, tensor, shape, values, rng)
    if tensor.fan_in:
        bound = 1 / np.sqrt(max(1, int(np.prod([sizes[i] for i in tensor.fan_in]))))
        return np.asarray(rng.uniform(-bound, bound, shape))
    if tensor.dtype == "complex":
        return np.asarray(0.02 * np.sqrt(0.5) * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)))
    return 0.02 * rng.standard_normal(shape)


def _evaluate(
    system: System,
    sizes: Sizes,
    tensor: Tensor,
    shape: tuple[int, ...],
    values: dict[str, Array],
    rng: np.random.Generator,
) -> Array:
    """An initialiser is an expression over the parameter's indices; each draw in it fills the whole parameter."""
    from seqdsl.ir.evaluate import Evaluation, Run, Store, Value

    run = Run(system, sizes, 0, {n: Store(v) for n, v in values.items()})
    evaluation = Evaluation(run, {})
    assert tensor.rhs is not None
    for node in walk(tensor.rhs):
        if node.op in RANDOM:
            args = [evaluation.value(a, None).spread(tensor.indices) for a in node.args]
            drawn = _random(node, args, shape, tensor.dtype == "complex", rng)
            evaluation.done[(node, id(None))] = Value(tensor.indices, drawn)
    value = evaluation.value(tensor.rhs, None).spread(tensor.indices)
    return np.array(np.broadcast_to(value, shape), np.complex128 if tensor.dtype == "complex" else np.float64)


def _random(node: Node, args: list[Array], shape: tuple[int, ...], is_complex: bool, rng: np.random.Generator) -> Array:
    def draw() -> Array:
        if node.op == "normal":
            return args[0] + args[1] * rng.standard_normal(shape)
        if node.op == "uniform":
            return args[0] + (args[1] - args[0]) * rng.random(shape)
        rows, columns = (shape[0], int(np.prod(shape[1:]))) if len(shape) > 1 else (1, int(np.prod(shape)))
        q, _ = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        return (q if rows >= columns else q.T).reshape(shape)

    return draw() if not is_complex else np.sqrt(0.5) * (draw() + 1j * draw())
