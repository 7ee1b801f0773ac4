"""Indices that forms make: for lags, ranks, the parts of a state. Entry points: `new_index`, `along`."""

from __future__ import annotations

from collections.abc import Sequence

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.system import Index, System


def new_index(system: System, wanted: str, size: int | Node) -> tuple[System, str]:
    """The system with one more index, of that length, and its name: the wanted one, with a number where that is taken."""
    name = build.numbered(wanted, system.indices)
    return system.with_indices(Index(name, name, build.const(size) if isinstance(size, int) else size)), name


def along(index: str, values: Sequence[Node]) -> Node:
    """The n-th value where the index is n: the values stacked, in one expression."""
    result = values[-1]
    for n, value in reversed(list(enumerate(values[:-1]))):
        if value is not result:
            result = build.where(build.make("eq", build.index(index), build.const(n)), value, result)
    return result
