"""Matrices as a diagonal and a few columns times rows, read off their terms.

A term splits where each of its factors varies along the row's index or along the column's, and none along both; what a sum
ties together, `sum[j] v[n, j] u[j, m]`, are as many terms as j has values. Nothing is tried with numbers: `w[n, m]` is a
full matrix whatever it holds. Entry points: `outers`, `merged`, `diagonal_and_outers`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.algebra.monomials import factors, opened
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound


@dataclass(frozen=True)
class Outer:
    """left * right, summed over `over`: only the left varies along the row's index, only the right along the column's."""

    left: Node
    right: Node
    over: tuple[str, ...] = ()


def diagonal_and_outers(matrix: Node, row: str, column: str) -> tuple[Node, list[Outer]] | None:
    """A matrix that is a sum of what stands where its indices are equal, and of terms; None if it is no such sum."""
    diagonal: Node = build.ZERO
    found: list[Outer] = []
    for sign, term in _summands(matrix):
        own = term.op == "where" and term.args[2] is build.ZERO and term.args[0] is _same(row, column)
        part = build.substitute(term.args[1], {column: build.index(row)}) if own else term
        part = part if sign > 0 else build.neg(part)
        terms = [] if own else outers(part, row, column)
        if terms is None:
            return None
        diagonal, found = build.add(diagonal, part) if own else diagonal, found + terms
    return diagonal, min((merged([_turned(x, row, column, to) for x in found]) for to in ("left", "right")), key=len)


def _summands(node: Node, sign: int = 1) -> list[tuple[int, Node]]:
    if node.op in ("add", "sub"):
        return _summands(node.args[0], sign) + _summands(node.args[1], sign if node.op == "add" else -sign)
    return _summands(node.args[0], -sign) if node.op == "neg" else [(sign, node)]


def _same(row: str, column: str) -> Node:
    return build.make("eq", build.index(column), build.index(row))


def _turned(term: Outer, row: str, column: str, to: str) -> Outer:
    """The same with all that varies along neither index on one side, and the other in one order: what is the same is one."""
    inner = {row, column, *term.over}
    left, right = ([g for f in factors(side) for g in opened(f)] for side in (term.left, term.right))
    shared = [f for f in (*left, *right) if not f.free & inner]
    left, right = (sorted((f for f in side if f.free & inner), key=repr) for side in (left, right))
    sides = {"left": build.product(left), "right": build.product(right)}
    sides[to] = build.mul(build.product(shared), sides[to])
    return Outer(**sides, over=term.over)


def merged(terms: list[Outer]) -> list[Outer]:
    """Those with the same right side are one, and so are those with the same left."""
    rights: dict[tuple[Node, tuple[str, ...]], Node] = {}
    for t in terms:
        rights[t.right, t.over] = build.add(rights.get((t.right, t.over), build.ZERO), t.left)
    lefts: dict[tuple[Node, tuple[str, ...]], Node] = {}
    for (right, over), left in rights.items():
        lefts[left, over] = build.add(lefts.get((left, over), build.ZERO), right)
    return [Outer(left, right, over) for (left, over), right in lefts.items()]


def outers(node: Node, row: str, column: str) -> list[Outer] | None:
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
        terms = [] if part is build.ZERO else outers(part, row, column)
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
