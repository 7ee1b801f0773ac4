"""What the reference interpreter keeps: arrays with named dimensions, stored tensors, and the run they belong to.

Architecture invariant: data only; `evaluate` and `interpreter` compute with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from seqdsl.ir.sizes import Sizes
from seqdsl.ir.state import StateEntry
from seqdsl.ir.system import System

Array = np.ndarray[Any, Any]


class Value(NamedTuple):
    """An array whose axes are indices."""

    dims: tuple[str, ...]
    data: Array

    def spread(self, dims: tuple[str, ...]) -> Array:
        """The array over `dims`, of length 1 along those that the value does not vary along."""
        if dims == self.dims:
            return self.data
        if not self.dims:
            return self.data.reshape([1] * len(dims))
        lengths = dict(zip(self.dims, self.data.shape, strict=True))
        return self.data.transpose([self.dims.index(d) for d in dims if d in lengths]).reshape([lengths.get(d, 1) for d in dims])


def union(values: list[Value]) -> tuple[str, ...]:
    """The dimensions of all, in order of appearance."""
    if len({v.dims for v in values}) == 1:
        return values[0].dims
    return tuple(dict.fromkeys(d for v in values for d in v.dims))


@dataclass
class Store:
    """A tensor's entries; along `axis` they start at position `base` (a state record supplies the earlier ones)."""

    data: Array
    known: Array | None = None
    axis: int | None = None
    base: int = 0
    boundary: Array | None = None


class Undefined(AssertionError):
    """A point was read before it was computed: the schedule, and so the compiler, is wrong."""


@dataclass
class Run:
    """One run of a system: its sizes, how many positions of the stream lie before it, and what is computed so far."""

    system: System
    sizes: Sizes
    offset: int
    stores: dict[str, Store] = field(default_factory=dict)
    entries: tuple[StateEntry, ...] = ()
    steppable: bool = True

    def extent(self, index: str) -> tuple[int, int]:
        """First position and length of an index: the stream's own index runs over the new positions only."""
        name = index.rstrip("'")
        length = self.sizes.lengths[name]
        return (self.offset, length - self.offset) if name == self.system.stream else (0, length)
