"""The writes of an entrywise state, as products of what varies along the rows of a read and what does not."""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.algebra.affine import Diagonal
from seqdsl.algebra.monomials import monomials
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make


@dataclass(frozen=True)
class Writes:
    """The writes of a state, split for one set of rows: (k, v, summed rank indices) each."""

    pairs: tuple[tuple[Node, Node, tuple[str, ...]], ...]
    decay: Node
    log: bool
    start: Node
    time: str
    rows: tuple[str, ...]


def writes_of(state: Diagonal, start: Node, rows: tuple[str, ...], avoid: frozenset[str] = frozenset()) -> Writes:
    """k is the product of the factors along the rows, v that of the rest; summed indices keep clear of `avoid`."""
    update = state.update
    row_set = frozenset(rows)
    pairs = []
    for parts, over in monomials(state.write, avoid, row_set):
        left = [f for f in parts if f.free & row_set]
        right = [f for f in parts if not f.free & row_set]
        pairs.append((build.product(left), build.product(right), over))
    return Writes(tuple(pairs), state.operand, state.log, start, update.time, rows)


def last_entry(state: Diagonal, start: Node) -> Node:
    """The state after the last position, entry by entry: every write, decayed, and the decayed start."""
    attr = ((state.update.time,), (), (("log", state.log),))
    return make("decayed_state", state.write, build.ONE, state.operand, start, attr=attr)
