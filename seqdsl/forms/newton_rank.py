"""Matrices of slopes that are a few columns times rows: entries that mix only through a few sums for all of them.

In `h' = tanh(x + a h + u sum[m] w[m] h[m])` the slopes are a diagonal and the column `(1 - h'^2) u` times the row `w`. A
term splits where each of its factors varies along the row's index or along the column's, and none along both; what a sum
ties together, `sum[j] v[n, j] u[j, m]`, are as many terms as j has values. That is read off the term, and not tried with
numbers: `w[n, m]` is a full matrix whatever it holds. Products with such matrices, and of them, need no matrix
(ranks add, up to the length of a piece), so cells of any width are solved. Entry points: `low_rank`, `couplings`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from seqdsl.ir import build
from seqdsl.ir.dependence import every_loop, schedule
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound
from seqdsl.ir.system import System, Tensor

LARGEST_RANK = 4  # of all pairs of states together: over a piece of 64 steps it is 64 times that


@dataclass(frozen=True)
class Outer:
    """left * right, summed over `over`: only the left varies along the row's index, only the right along the column's."""

    left: Node
    right: Node
    over: tuple[str, ...] = ()


def low_rank(system: System, states: list[Tensor]) -> list[list[list[Outer]]] | None:
    """For each state that `newton` marks, and each state before: the terms of their matrix. None where the states do not
    mix, or one of the matrices is not known to be of small rank."""
    marks = [s.rhs for s in states if s.rhs is not None]
    rows: list[list[list[Outer]]] = []
    total = 0
    for mark in marks:
        rows.append([])
        for matrix in mark.args[2 + len(marks) :]:
            terms = [] if matrix is build.ZERO else _factored(matrix.args[0], bound(matrix)[0].rstrip("'"), bound(matrix)[0])
            terms = None if terms is None else _merged(terms)
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


def _merged(terms: list[Outer]) -> list[Outer]:
    """Those with the same right side are one, and so are those with the same left."""
    rights: dict[tuple[Node, tuple[str, ...]], Node] = {}
    for t in terms:
        rights[t.right, t.over] = build.add(rights.get((t.right, t.over), build.ZERO), t.left)
    lefts: dict[tuple[Node, tuple[str, ...]], Node] = {}
    for (right, over), left in rights.items():
        lefts[left, over] = build.add(lefts.get((left, over), build.ZERO), right)
    return [Outer(left, right, over) for (left, over), right in lefts.items()]


def _factored(node: Node, row: str, column: str) -> list[Outer] | None:
    """The terms of a matrix; None where some factor varies along both of its indices."""
    if column not in node.free:
        return [Outer(node, build.ONE)]
    if row not in node.free and node.op not in ("neg", "mul", "div"):  # of which factors that vary along neither go left
        return [Outer(build.ONE, node)]
    if node.op not in ("add", "sub", "neg", "mul", "div", "where", "sum"):
        return None
    if node.op == "where" and {row, column} & node.args[0].free:
        return None  # what is not chosen has no value, and would have one as a factor
    if node.op == "sum" and node.args[1] is not build.TRUE:
        return None
    if node.op == "div" and {row, column} <= node.args[1].free:
        return None
    inner = node.args[:1] if node.op in ("div", "sum") else node.args[1:] if node.op == "where" else node.args
    found = []
    for part in inner:
        terms = [] if part is build.ZERO else _factored(part, row, column)
        if terms is None:
            return None
        found.append(terms)
    return _joined(node, found, column)


def _joined(node: Node, found: list[list[Outer]], column: str) -> list[Outer] | None:
    """The terms of a node from those of its parts."""
    if node.op == "add":
        return found[0] + found[1]
    if node.op in ("sub", "neg"):
        return [*found[0][: len(found[0]) * (node.op == "sub")], *(replace(t, left=build.neg(t.left)) for t in found[-1])]
    if node.op == "mul":
        pairs = [(a, b) for a in found[0] for b in found[1]]
        if any(set(a.over) & set(b.over) for a, b in pairs):
            return None
        return [Outer(build.mul(a.left, b.left), build.mul(a.right, b.right), (*a.over, *b.over)) for a, b in pairs]
    if node.op == "div":
        by = node.args[1]
        if column in by.free:
            return [replace(t, right=build.div(t.right, by)) for t in found[0]]
        return [replace(t, left=build.div(t.left, by)) for t in found[0]]
    if node.op == "where":
        condition, negated = node.args[0], build.make("not", node.args[0])
        return [_chosen(c, t) for c, terms in zip((condition, negated), found, strict=True) for t in terms]
    summed = [_summed(t, bound(node)) for t in found[0]]
    return [t for t in summed if t is not None] if None not in summed else None


def _chosen(condition: Node, term: Outer) -> Outer:
    left, right = (build.where(condition, x, build.ZERO) for x in (term.left, term.right))
    return replace(term, left=left, right=right)


def _summed(term: Outer, over: tuple[str, ...]) -> Outer | None:
    """A term summed over more indices: what one side has alone is its own sum."""
    if set(over) & set(term.over):
        return None
    left, right = ({i for i in over if i in side.free} for side in (term.left, term.right))
    neither = [build.size(i) for i in over if i not in left | right]
    return Outer(
        build.product([*neither, build.reduce("sum", [i for i in over if i in left - right], term.left)]),
        build.reduce("sum", [i for i in over if i in right - left], term.right),
        (*term.over, *(i for i in over if i in left & right)),
    )
