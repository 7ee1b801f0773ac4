"""The value of what only forms make: scans, reads of decayed states, and their feedback (`ops`: binding "scan", "last").

Part of the interpreter, kept apart from the language's own operators: a mixer's text never contains these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, SCAN_OPERANDS, bound, options
from seqdsl.ir.values import Array, Run, Value

if TYPE_CHECKING:
    from seqdsl.ir.evaluate import Evaluation


def scan_value(evaluation: Evaluation, node: Node, mask: Value | None) -> Value:
    """Operands arranged as the reference of the operator wants them, and its result with named dimensions."""
    time, *ranks = node.attr[0]
    rows = node.attr[1]
    args = [evaluation.value(a, evaluation.without(mask, bound(node))) for a in node.args]
    rest = tuple(dict.fromkeys(d for a in args for d in a.dims if d not in bound(node)))
    arrays = []
    for layout, arg in zip(SCAN_OPERANDS[node.op], args, strict=True):
        arrays.append(_grouped(evaluation.run, arg, layout, time, ranks, rest, rows))
    reference = OPS[node.op].reference
    assert reference is not None
    result = np.asarray(reference(*arrays, **options(node)))
    if OPS[node.op].binding == "last":
        return Value(rest, result)
    merged = 1 + ("j" in SCAN_OPERANDS[node.op][0])  # the time, and the ranks as one
    lengths = [evaluation.run.extent(d)[1] for d in ranks]
    result = result.reshape(result.shape[0], *lengths, *result.shape[merged:])
    return evaluation.at_loops(Value((time, *ranks, *rest), result))


def _grouped(
    run: Run, arg: Value, layout: str, time: str, ranks: list[str], rest: tuple[str, ...], rows: tuple[str, ...]
) -> Array:
    """An operand of a scan as its reference wants it: [time, ranks as one, the rest, rows as one]."""
    groups = [*([[time]] if "t" in layout else []), *([ranks] if "j" in layout else []), *([d] for d in rest)]
    groups += [list(rows)] if "r" in layout else []
    dims = tuple(d for group in groups for d in group)
    lengths = dict(zip(dims, arg.spread(dims).shape, strict=True))
    lengths |= {d: run.extent(d)[1] for d in dims if d not in rest}
    data = np.broadcast_to(arg.spread(dims), [lengths[d] for d in dims])
    return data.reshape([int(np.prod([lengths[d] for d in group], dtype=np.int64)) for group in groups])
