"""Rows that grow with time: of a tensor `z[t, s]` with `index s over t`, what lies beyond its own position, at s > t.

A row that the state keeps is as long as the stream was. When the stream goes on, the row is lengthened by what its
equation gives there; that is known before anything of the new positions is where it is one number, as the 0 of
`where(s < t, .., 0)`. It is shown by induction: assume the number of all tensors that read each other, and evaluate the
equations under `t < s` as far as numbers go. Any well-founded order of the points (rule 18) makes that a proof.

Entry point: `numbers_beyond`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from seqdsl.ir import build
from seqdsl.ir.dependence import build_not
from seqdsl.ir.node import Node
from seqdsl.ir.nonzero import Facts, conditions, grows
from seqdsl.ir.ops import OPS, bound, remake
from seqdsl.ir.order import difference, refuted, upper_bound
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.system import System, Tensor

_BUILT: dict[str, Callable[..., Node]] = {"add": build.add, "sub": build.sub, "mul": build.mul, "neg": build.neg, "and": build.both}


@once_for_each
def numbers_beyond(system: System) -> dict[str, Node]:
    """The number that a tensor is wherever one of its further indices of the stream is later than its first, for each
    of which one number is shown."""
    assumed = {t.name: start for t in system.derived() if (start := _start(system, t)) is not None}
    while True:
        for _ in assumed:  # what has no base case may be another number than 0
            found = {n: _number(system, n, assumed) for n in assumed if not system.tensors[n].edges}
            better = {n: x for n, x in found.items() if x is not None and x is not assumed[n]}
            if not better:
                break
            assumed = {**assumed, **better}
        kept = {n: x for n, x in assumed.items() if _number(system, n, assumed) is x}
        if len(kept) == len(assumed):
            return kept
        assumed = kept


def _start(system: System, tensor: Tensor) -> Node | None:
    """The number to try first, that of the base case; None where there is no row, or a base case that is no number."""
    if not grows(system, tensor) or system.stream not in tensor.indices or tensor.rhs is None:
        return None
    time = tensor.indices.index(system.stream)
    if any(e.position != time or build.value_of(e.point) != -1 for e in tensor.edges):
        return None
    if not tensor.edges:
        return build.zero(tensor.dtype)
    start = system.tensors[tensor.edges[0].tensor]
    number = _whole(start.rhs) if start.kind == "derived" and start.rhs is not None else None
    return number if number is not None and _is_number(number) else None


def _is_number(node: Node) -> bool:
    return node.op == "const" or node.op == "neg" and node.args[0].op == "const"


def _whole(node: Node) -> Node:
    """0.0 as 0: one number is one node."""
    value = build.value_of(node)
    return node if value is None or value.denominator != 1 else build.const(int(value))


def _number(system: System, name: str, assumed: dict[str, Node]) -> Node | None:
    """What the equation gives beyond the row's own position, if that is one number."""
    tensor = system.tensors[name]
    assert tensor.rhs is not None
    here = build.index(str(system.stream))
    ahead = [build.make("lt", here, build.index(tensor.indices[k])) for k in grows(system, tensor)]
    number, *others = (_Beyond(system, assumed).under(tensor.rhs, (fact,)) for fact in ahead)
    return number if _is_number(number) and all(n is number for n in others) else None


@dataclass(frozen=True)
class _Beyond:
    """An evaluation as far as numbers go; `done` holds what it has found."""

    system: System
    assumed: dict[str, Node]
    done: dict[tuple[Node, Facts], Node] = field(default_factory=dict)

    def under(self, node: Node, facts: Facts) -> Node:
        """The node where the facts hold, with numbers in place of what is known there."""
        if (node, facts) not in self.done:
            self.done[node, facts] = _whole(self._under(node, facts))
        return self.done[node, facts]

    def _under(self, node: Node, facts: Facts) -> Node:
        if node.dtype == "bool":
            for condition, value in ((node, build.FALSE), (build_not(node), build.TRUE)):
                if refuted(self.system, condition, facts):
                    return value
        if any(refuted(self.system, f, facts) for f in conditions(self.system, node)):
            return build.ZERO
        if node.op == "read":
            return self._read(node, facts)
        if OPS[node.op].binding:
            known = tuple(f for f in facts if not f.free & set(bound(node)))
            return build.ZERO if node.op == "sum" and self.under(node.args[0], known) is build.ZERO else node
        if node.op == "where":
            condition, a, b = node.args
            a = self.under(a, (*facts, *build.conjuncts(condition)))
            b = self.under(b, (*facts, *build.conjuncts(build_not(condition))))
            return a if a is b else build.where(self.under(condition, facts), a, b)
        args = tuple(self.under(a, facts) for a in node.args)
        if node.op == "div" and args[0] is build.ZERO:
            return build.ZERO  # 0 / x -> 0, as in `conditions`
        return _BUILT[node.op](*args) if node.op in _BUILT else remake(node, args)

    def _read(self, node: Node, facts: Facts) -> Node:
        """The number that is assumed of what is read, where the read lies beyond the row's own position."""
        tensor, number = self.system.tensors[str(node.attr)], self.assumed.get(str(node.attr))
        if number is None:
            return node
        time = tensor.indices.index(str(self.system.stream))
        at, rows = node.args[time], [node.args[k] for k in grows(self.system, tensor)]
        tops = [upper_bound(self.system, difference(at, row), facts) for row in rows]
        if not any(top is not None and top < 0 for top in tops):
            return node
        if number is not build.ZERO and number is not build.FALSE:  # what every tensor is outside its axes
            before = tensor.edges and any(difference(at, build.index(i)) == {None: -1} for i in at.free)
            if any(a.op != "index" for k, a in enumerate(node.args) if k != time or not before):
                return node
        return number
