"""Where an expression can be non-zero, from its own form.

Architecture invariant: looks at equations only; what is shown of recurrences (`beyond`) is given to it.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.dependence import build_not
from seqdsl.ir.node import Node, read_names
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.system import System, Tensor

Facts = tuple[Node, ...]
_CONDITIONS = frozenset({"lt", "le", "eq", "ne", "and"})


@once_for_each
def conditions(system: System, node: Node, rows: frozenset[str] = frozenset(), depth: int = 4) -> Facts:
    """Conditions that hold wherever the value is not zero. `rows` are the tensors that are known to be 0 beyond (`beyond`)."""
    if depth == 0:
        return ()
    if node.op in _CONDITIONS:  # 0 or 1 in arithmetic
        return tuple(build.conjuncts(node))
    if node.op == "mul":
        return conditions(system, node.args[0], rows, depth) + conditions(system, node.args[1], rows, depth)
    if node.op in ("div", "neg"):
        return conditions(system, node.args[0], rows, depth)
    if node.op in ("add", "sub"):
        left, right = (conditions(system, x, rows, depth) for x in node.args)
        return tuple(f for f in left if f in right)
    if node.op == "sum":
        inside = (*build.conjuncts(node.args[1]), *conditions(system, node.args[0], rows, depth))
        return tuple(f for f in inside if not f.free & set(node.attr[0]))
    if node.op == "where":
        condition, a, b = node.args
        if b is build.ZERO:
            return (*build.conjuncts(condition), *conditions(system, a, rows, depth))
        return (*build.conjuncts(build_not(condition)), *conditions(system, b, rows, depth)) if a is build.ZERO else ()
    if node.op in ("softmax", "rms_norm", "layer_norm", "l2_norm"):
        return tuple(build.conjuncts(node.args[1]))
    return _of_read(system, node, rows, depth) if node.op == "read" else ()


def _of_read(system: System, node: Node, rows: frozenset[str], depth: int) -> Facts:
    tensor = system.tensors[str(node.attr)]
    if tensor.name in rows:
        here = node.args[tensor.indices.index(str(system.stream))]
        return tuple(build.make("le", node.args[k], here) for k in grows(system, tensor))
    if tensor.kind != "derived" or tensor.rhs is None or tensor.edges or tensor.rhs.dtype == "bool":
        return ()
    if tensor.name in read_names(tensor.rhs):
        return ()
    at = dict(zip(tensor.indices, node.args, strict=True))
    facts = [f for f in conditions(system, tensor.rhs, rows, depth - 1) if build.can_substitute(f, at)]
    return tuple(build.substitute(f, at) for f in facts)


def grows(system: System, tensor: Tensor) -> tuple[int, ...]:
    """The positions of its further indices of the stream; none for a tensor that has no row along it."""
    along = [k for k, i in enumerate(tensor.indices) if system.axis(i) == system.stream]
    return tuple(k for k in along if tensor.indices[k] != system.stream) if len(along) > 1 else ()
