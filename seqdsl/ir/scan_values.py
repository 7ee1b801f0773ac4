"""The value of what only forms make: scans, reads of decayed states, and their feedback (`ops`: binding "scan", "last").

Part of the interpreter, kept apart from the language's own operators: a mixer's text never contains these.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, SCAN_OPERANDS, bound, options
from seqdsl.ir.values import Array, Run, Value

if TYPE_CHECKING:
    from seqdsl.ir.evaluate import Evaluation


def scan_value(evaluation: Evaluation, node: Node, mask: Value | None) -> Value:
    """Operands arranged as the reference of the operator wants them, and its result with named dimensions."""
    groups = _groups(node)
    args = [evaluation.value(a, evaluation.without(mask, bound(node))) for a in node.args]
    named = {*bound(node), *groups["p"]}
    rest = tuple(dict.fromkeys(d for a in args for d in a.dims if d not in named))
    arrays = []
    for layout, arg in zip(SCAN_OPERANDS[node.op], args, strict=True):
        arrays.append(_grouped(evaluation.run, arg, layout, groups, rest))
    reference = OPS[node.op].reference
    assert reference is not None
    result = np.asarray(reference(*arrays, **options(node)))
    lead = groups["p"] if OPS[node.op].binding == "last" else groups["t"] + groups["s"] + groups["j"]
    shape = (*(evaluation.run.extent(d)[1] for d in lead), *result.shape[result.ndim - len(rest) :])
    result = result.reshape(shape)
    return evaluation.at_loops(Value((*lead, *rest), result))


def _groups(node: Node) -> dict[str, tuple[str, ...]]:
    """The indices that each letter of `SCAN_OPERANDS` stands for."""
    (time, *others), consumed = node.attr[0], node.attr[1]
    if node.op == "grid_scan":
        return {"t": (time,), "s": tuple(others[:1]), "j": tuple(others[1:]), "p": (), "m": (), "r": tuple(consumed)}
    if not node.op.startswith("block_"):
        return {"t": (time,), "s": (), "j": tuple(others), "p": (), "m": (), "r": tuple(consumed)}
    if OPS[node.op].binding == "last":
        return {"t": (time,), "s": (), "j": (), "p": consumed[:1], "m": tuple(others), "r": consumed[1:]}
    return {"t": (time,), "s": (), "j": tuple(others), "p": consumed[:1], "m": consumed[1:2], "r": consumed[2:]}


def _grouped(run: Run, arg: Value, layout: str, groups: dict[str, tuple[str, ...]], rest: tuple[str, ...]) -> Array:
    """An operand of a scan as its reference wants it: [time, ranks as one, parts, the rest, rows as one]."""
    shape = [groups[letter] for letter in layout if letter != "r"] + [(d,) for d in rest]
    shape += [groups["r"]] if "r" in layout else []
    dims = tuple(d for group in shape for d in group)
    lengths = dict(zip(dims, arg.spread(dims).shape, strict=True))
    lengths |= {d: run.extent(d)[1] for d in dims if d not in rest}
    data = np.broadcast_to(arg.spread(dims), [lengths[d] for d in dims])
    return data.reshape([math.prod(lengths[d] for d in group) for group in shape])
