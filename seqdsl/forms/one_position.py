"""The equations for one position of the stream: what is read of the position before is what the state holds.

Where a run has one position, `S[t-1]` can only be the state's entry, so it becomes a tensor of its own and the
recurrence is none any more: what a decode step computes, as a graph that emitters see through. Right for a stream of
length 1, and for no other; reads from farther back stay as they are, and so does what the state holds in two ways.
Entry point: `one_position`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from seqdsl.ir import build
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.order import difference
from seqdsl.ir.state import StateEntry, needed
from seqdsl.ir.system import System, Tensor

_T = TypeVar("_T")


def one_position(system: System) -> System | None:
    """The system with each value of the position before taken from the state; None where it has no such value."""
    system = needed(system)
    record = system.record or ()
    twice = {e.tensor for k, e in enumerate(record) if any(e.tensor == other.tensor for other in record[:k])}
    held = {e.tensor: e for e in record if e.tail is build.ONE and e.boundary is None and e.tensor not in twice}
    carries: dict[str, Tensor] = {}

    def taken(node: Node) -> Node | None:
        entry = held.get(str(node.attr)) if node.op == "read" else None
        if entry is None or not _is_before(system, node, entry):
            return None
        tensor = system.tensors[entry.tensor]
        carry = carries.get(tensor.name) or _carry(system, tensor, entry)
        if carry is None:
            return None
        carries[tensor.name] = carry
        return build.read(carry.name, _without(node.args, entry.position), tensor.dtype)

    changed = {t.name: replace(t, rhs=rebuild(t.rhs, taken)) for t in system.derived() if t.rhs is not None}
    for name in carries:  # its base case is the carry's now
        tensor = changed.get(name, system.tensors[name])
        changed[name] = replace(tensor, edges=tuple(e for e in tensor.edges if e.position != held[name].position))
    return system.with_tensors(*changed.values(), *carries.values()) if carries else None


def _is_before(system: System, node: Node, entry: StateEntry) -> bool:
    """Is it a read of the position before this one?"""
    assert system.stream is not None
    return difference(node.args[entry.position], build.index(system.stream)) == {None: -1}


def _carry(system: System, tensor: Tensor, entry: StateEntry) -> Tensor | None:
    """The value that the state holds, or the base case; None where it has base cases along other axes, too."""
    indices = _without(tensor.indices, entry.position)
    start = build.zero(tensor.dtype)
    for edge in tensor.edges:
        if edge.position != entry.position:
            return None
        if build.value_of(edge.point) == -1:
            start = build.read(edge.tensor, [build.index(i) for i in indices], system.tensors[edge.tensor].dtype)
            if tensor.dtype in ("real", "complex"):
                start = build.at_least_real(start)
    return Tensor(
        f"{tensor.name}@before", indices, tensor.dtype, "carry", start, path=(entry.name,),
        comment=f"{tensor.name} at the position before",
    )  # fmt: skip


def _without(items: tuple[_T, ...], position: int) -> tuple[_T, ...]:
    return items[:position] + items[position + 1 :]
