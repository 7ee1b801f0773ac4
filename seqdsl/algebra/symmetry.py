"""Symmetry along an axis, shown from the equations: permutations and shifts of the inputs do the same to the outputs.

Equations that never use a position along an axis treat its positions alike. Equations that read only `i - k`, have no
base case and give 0 for zeros treat every start alike. Equations that read only `(i + k) % |i|` treat a circle alike.
What is not shown is `Unknown`: the equations may still have the symmetry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from seqdsl.algebra.equal import same
from seqdsl.algebra.verdict import Proved, Unknown, Verdict
from seqdsl.ir import build
from seqdsl.ir.node import Node, reads, rebuild
from seqdsl.ir.ops import OPS, bound
from seqdsl.ir.order import difference, distance
from seqdsl.ir.system import System, Tensor, reached

_SYMMETRIC = frozenset(
    "sum mean prod max min any all logsumexp softmax rms_norm layer_norm l2_norm normaliser normalised_read".split()
)
Subscript = Callable[[Node], bool]  # may a tensor be read there, along the axis?


def permutation(system: System, index: str) -> Verdict:
    """Does permuting the inputs along an axis permute the outputs, whatever the permutation?"""
    axis = system.axis(index)
    fault = next(_positions(system, axis, lambda a: a.op == "index"), None)
    if fault is not None:
        return Unknown(fault)
    return Proved("permutation", f"no equation uses a position along {index}, and what reduces it has no order")


def rotation(system: System, index: str) -> Verdict:
    """Does a circular shift of the inputs along an axis shift the outputs?"""
    axis = system.axis(index)
    fault = next(_positions(system, axis, lambda a: _is_on_circle(system, axis, a)), None)
    if fault is not None:
        return Unknown(fault)
    return Proved("shift", f"positions along {index} are used only as places on a circle, `({index} + k) % |{index}|`")


def _is_on_circle(system: System, axis: str, node: Node) -> bool:
    if node.op == "mod" and node.args[1].op == "size" and system.axis(str(node.args[1].attr)) == axis:
        form = difference(node.args[0], build.ZERO)
        own = [t for t in form if t is not None and t.op == "index" and system.axis(str(t.attr)) == axis]
        rest = [t for t in form if t is not None and t not in own]
        free = not any(_mentions(system, axis, t) or _gathers(system, axis, t) for t in rest)
        return len(own) == 1 and form[own[0]] == 1 and free
    return node.op == "index"


def _mentions(system: System, axis: str, node: Node) -> bool:
    return any(system.axis(i) == axis for i in node.free)


def _gathers(system: System, axis: str, node: Node) -> bool:
    """Does it read what goes along the axis, at whatever place?"""
    return any(system.axis(i) == axis for r in reads(node) for i in system.tensors[str(r.attr)].indices)


def _positions(system: System, axis: str, allowed: Subscript) -> Iterator[str]:
    """What uses a position along the axis other than as an allowed subscript, in words."""
    for tensor in reached(system).tensors.values():
        along = any(system.axis(i) == axis for i in tensor.indices)
        if along and tensor.kind in ("param", "const"):
            yield f"`{tensor.name}` is given along the axis"
        if tensor.kind == "derived" and tensor.rhs is not None:
            if any(system.axis(tensor.indices[e.position]) == axis for e in tensor.edges):
                yield f"`{tensor.name}` has a base case"
            yield from _uses(system, axis, tensor.rhs, allowed)


def _uses(system: System, axis: str, node: Node, allowed: Subscript) -> Iterator[str]:
    args = list(node.args)
    if node.op == "read":
        own = system.tensors[str(node.attr)].indices
        along = [a for i, a in zip(own, args, strict=True) if system.axis(i) == axis]
        args = [a for i, a in zip(own, args, strict=True) if system.axis(i) != axis]
        if not all(allowed(a) and _mentions(system, axis, a) for a in along):
            yield f"`{node!r}` depends on the position"
    elif node.op in ("eq", "ne") and all(a.op == "index" and _mentions(system, axis, a) for a in args):
        return  # the same place, or not: no order in that
    elif node.op in ("index", "first") and system.axis(str(node.attr)) == axis:
        yield f"`{node.attr}` is used as a number"
    elif OPS[node.op].binding and node.op not in _SYMMETRIC and any(system.axis(i) == axis for i in bound(node)):
        yield f"`{node.op}` goes along the axis in its order"
    for arg in args:
        yield from _uses(system, axis, arg, allowed)


def delay(system: System, index: str) -> Verdict:
    """Does a shift of the inputs to later positions, zeros coming in, shift the outputs?"""
    axis = system.axis(index)
    moving = {t.name for t in system.inputs() if any(system.axis(i) == axis for i in t.indices)}
    for tensor in reached(system).derived():
        moving |= {tensor.name} if any(system.axis(i) == axis for i in tensor.indices) else set()
    for tensor in reached(system).tensors.values():
        fault = _keeps_delay(system, axis, tensor, moving)
        if fault is not None:
            return Unknown(fault)
    return Proved("shift", f"every read along {index} is of a fixed distance back, and zeros in give zeros out")


def _keeps_delay(system: System, axis: str, tensor: Tensor, moving: set[str]) -> str | None:
    own = [i for i in tensor.indices if system.axis(i) == axis]
    if tensor.kind != "derived":
        ordinary = tensor.kind == "input" and tensor.dtype in ("real", "complex") and len(own) == 1
        return None if ordinary or not own else f"`{tensor.name}` does not move with the inputs"
    if tensor.rhs is None or len(own) > 1 or tensor.edges:
        return f"`{tensor.name}` has a base case, or two indices of the axis"
    if not own:
        met = next((r for r in reads(tensor.rhs) if r.attr in moving), None)
        return None if met is None else f"`{tensor.name}` gathers the axis"

    def is_back(node: Node) -> bool:
        gap = distance(system, own[0], node, ())
        fixed = not any(t is not None and _mentions(system, axis, t) for t in difference(build.index(own[0]), node))
        return fixed and (gap in ("+", "0+") or (isinstance(gap, int) and gap >= 0))

    fault = next(_uses(system, axis, tensor.rhs, is_back), None)
    silent = rebuild(tensor.rhs, lambda n: build.ZERO if n.op == "read" and n.attr in moving else None)
    if fault is None and not same(system, silent, build.ZERO):
        return f"`{tensor.name}` is not shown to be 0 where everything it reads is"
    return fault
