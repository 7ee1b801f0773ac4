"""The derivatives of a step by the states before, as a diagonal and a matrix for each pair of states.

A state is read at its own place or, in sums, at others along one axis, the mixing one. The derivative of a term by the
entry m of a state is then `sum over i of d_i delta(i, m) + D[m]`: a coefficient d_i for each index i at which the term
reads the state, and a part D that varies along m, which a sum over i leaves behind. Both follow term by term, forwards
(the chain rule, and `sum[i] d_i delta(i, m) = d_m`); terms are shared, and so are their derivatives. What is left at a
state's own index is the diagonal. Entry points: `mixing_index`, `Slopes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from seqdsl.algebra.affine import NoMatch, Update
from seqdsl.ir import build
from seqdsl.ir.derivatives import ELEMENTWISE
from seqdsl.ir.node import Node, read_names, reads
from seqdsl.ir.ops import OPS, bound

HARD = frozenset(("round", "sign", "step"))
Derivative = dict[tuple[str, str | None], Node]  # (state, the index at which it is read; None: varies along the column)


def mixing_index(updates: list[Update]) -> str | None:
    """The index along which a step reads states at other places than their own; None where there is none."""
    states = {u.state.name: u.state for u in updates}
    found = set()
    for update in updates:
        for read in reads(update.rhs):
            own = states.get(str(read.attr))
            if own is not None:
                found |= {i for i, a in _lanes(own.indices, read, update) if a is not build.index(i)}
    if len(found) > 1:
        raise NoMatch(f"entries mix along {' and '.join(f'`{i}`' for i in sorted(found))} at once")
    return found.pop() if found else None


def _lanes(indices: tuple[str, ...], read: Node, update: Update) -> Iterator[tuple[str, Node]]:
    return ((i, a) for i, a in zip(indices, read.args, strict=True) if i != update.time)


@dataclass
class Slopes:
    """Derivatives by the entries `column` of the states of some updates, which mix along `mixing` (or nowhere)."""

    updates: list[Update]
    mixing: str | None
    column: str
    done: dict[Node, Derivative] = field(default_factory=dict)

    def of(self, update: Update) -> list[tuple[Node, Node]]:
        """For each state, the diagonal and the matrix. Raises `NoMatch` where the step has no such derivative."""
        found = self._derivative(update.rhs)
        return [
            (found.get((u.state.name, self.mixing or ""), build.ZERO), found.get((u.state.name, None), build.ZERO))
            for u in self.updates
        ]

    def _derivative(self, node: Node) -> Derivative:
        if node not in self.done:
            depends = any(u.state.name in read_names(node) for u in self.updates)
            self.done[node] = self._of_term(node) if depends else {}
        return self.done[node]

    def _of_term(self, node: Node) -> Derivative:
        if node.op == "read":
            return self._of_read(node)
        if node.op == "sum":
            return self._of_sum(node)
        if node.op == "mean" and node.args[1] is build.TRUE:
            count = build.product(build.size(i) for i in bound(node))
            return self._derivative(build.div(build.reduce("sum", bound(node), node.args[0]), count))
        if OPS[node.op].binding:
            raise NoMatch(f"the state stands inside `{node.op}`, as in `{node!r}`: a matrix of slopes is had of sums alone")
        if node.op in HARD:
            raise NoMatch(f"`{node!r}` is a hard step of the state: its derivative says nothing of where it goes")
        if node.op == "where":
            return self._of_choice(node)
        if node.op not in ELEMENTWISE:
            if node.dtype == "bool":
                return {key: build.ZERO for arg in node.args for key in self._derivative(arg)}
            raise NoMatch(f"the state stands inside `{node.op}`, through which no derivative goes")
        total: Derivative = {}
        for arg, part in zip(node.args, ELEMENTWISE[node.op](node, build.const(Fraction(1))), strict=True):
            if part is not None:
                for key, slope in self._derivative(arg).items():
                    _add(total, key, build.mul(part, slope))
        return total

    def _of_read(self, node: Node) -> Derivative:
        update = next((u for u in self.updates if u.state.name == node.attr), None)
        if update is None:
            raise NoMatch(f"the state is an index, in `{node!r}`")
        at = dict(_lanes(update.state.indices, node, update))
        place = at.get(self.mixing or "")
        if place is not None and place.op != "index":
            raise NoMatch(f"`{node!r}` is not at its own place, and in no sum over that")
        return {(update.state.name, str(place.attr) if place is not None else ""): build.const(Fraction(1))}

    def _of_choice(self, node: Node) -> Derivative:
        condition, *branches = node.args
        if self._derivative(condition):
            raise NoMatch(f"the state decides a choice, `{condition!r}`: the step may jump")
        total: Derivative = {}
        for branch, chosen in zip(branches, (condition, build.make("not", condition)), strict=True):
            for key, slope in self._derivative(branch).items():
                _add(total, key, build.where(chosen, slope, build.ZERO))
        return total

    def _of_sum(self, node: Node) -> Derivative:
        body, guard = node.args
        if self._derivative(guard):
            raise NoMatch(f"the state decides a guard, `{guard!r}`")
        total: Derivative = {}
        for (state, place), slope in self._derivative(body).items():
            over, held, key = bound(node), guard, place
            if place in over:
                at = {str(place): build.index(self.column)}
                over, key = tuple(i for i in over if i != place), None
                slope, held = build.substitute(slope, at), build.substitute(guard, at)
            _add(total, (state, key), build.reduce("sum", over, slope, held))
        return total


def _add(total: Derivative, key: tuple[str, str | None], slope: Node) -> None:
    total[key] = build.add(total[key], slope) if key in total else slope
