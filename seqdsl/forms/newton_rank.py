"""Matrices of slopes that are a few columns times rows: entries that mix only through a few sums for all of them.

In `h' = tanh(x + a h + u sum[m] w[m] h[m])` the slopes are a diagonal and the column `(1 - h'^2) u` times the row `w`.
Products with such matrices, and of them, need no matrix (ranks add, up to the length of a piece), so cells of any width are
solved. Entry points: `low_rank`, `couplings`.
"""

from __future__ import annotations

from math import prod

from seqdsl.forms.low_rank import Outer, merged, outers
from seqdsl.ir import build
from seqdsl.ir.dependence import every_loop, schedule
from seqdsl.ir.ops import bound
from seqdsl.ir.system import System, Tensor

LARGEST_RANK = 4  # of all pairs of states together: over a piece of 64 steps it is 64 times that


def low_rank(system: System, states: list[Tensor]) -> list[list[list[Outer]]] | None:
    """For each state that `newton` marks, and each state before: the terms of their matrix. None where the states do not
    mix, or one of the matrices is not known to be of small rank."""
    marks = [s.rhs for s in states if s.rhs is not None]
    rows: list[list[list[Outer]]] = []
    total = 0
    for mark in marks:
        rows.append([])
        for matrix in mark.args[2 + len(marks) :]:
            terms = [] if matrix is build.ZERO else outers(matrix.args[0], bound(matrix)[0].rstrip("'"), bound(matrix)[0])
            terms = None if terms is None else merged(terms)
            rank = None if terms is None else _rank(system, terms)
            if terms is None or rank is None:
                return None
            rows[-1].append(terms)
            total += rank
    return rows if 0 < total <= LARGEST_RANK else None


def couplings(system: System) -> dict[str, list[list[Outer]]]:
    """The states that `newton` marks and whose matrices are all of small rank, each with the terms of its own."""
    found: dict[str, list[list[Outer]]] = {}
    if not any(t.rhs is not None and t.rhs.op == "newton" for t in system.derived()):
        return found
    for loop in [x for x in every_loop(schedule(system)) if not any(every_loop(x.body))]:
        states = [system.tensors[n] for n in loop.tensors()]
        if all(s.rhs is not None and s.rhs.op == "newton" for s in states):
            rows = low_rank(system, states) or []
            found.update(zip([s.name for s in states], rows, strict=False))
    return found


def _rank(system: System, terms: list[Outer]) -> int | None:
    sizes = [[system.index(i).size for i in term.over] for term in terms]
    known = [[None if size is None else build.value_of(size) for size in row] for row in sizes]
    if any(not isinstance(n, int) for row in known for n in row):
        return None
    return sum(prod(n for n in row if isinstance(n, int)) for row in known)
