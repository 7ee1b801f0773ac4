"""Equality of expressions, and of two tensors of a system (DERIVATIONS 6): canonical forms, and a bisimulation of
their recurrences.

Definitions that are not recurrent are written out. Two recurrences are taken for equal if their states, matched by name
of index, have equal base cases and, under that assumption, equal updates: the induction over the steps is the proof.
"""

from __future__ import annotations

from fractions import Fraction

from seqdsl.algebra.canon import Canon
from seqdsl.algebra.poly import ONE, Poly, Terms, accumulate, ordered
from seqdsl.algebra.verdict import Proved, Unknown, Verdict
from seqdsl.ir import build
from seqdsl.ir.dependence import recurrences
from seqdsl.ir.node import Node, rebuild, walk
from seqdsl.ir.ops import make
from seqdsl.ir.system import System

_LARGEST = 4000  # nodes of a written-out side


def equal(system: System, a: Node, b: Node, within: Canon | None = None) -> bool:
    """Are two expressions equal for all sizes and inputs? True is a proof; False proves nothing.

    Denominators of a - b are cleared, at most four times (DERIVATIONS 6.1).
    """
    forms = Canon(system) if within is None else within
    if a is b:
        return True
    gap = forms.poly(make("sub", a, b))
    for _ in range(4):
        if gap.is_zero:
            return True
        lowest: dict[Node, Fraction] = {}
        for m in gap.terms:
            for factor, e in m.factors:
                if e < 0 and not factor.free & frozenset(m.bound) and factor.op != "exp":
                    lowest[factor] = min(lowest.get(factor, e), e)
        if not lowest:
            return False
        clear: Terms = {(ordered({f: -e for f, e in lowest.items()}), ()): ONE}
        gap = forms.settle(_expanded(forms, gap, clear))
    return gap.is_zero


def _expanded(forms: Canon, gap: Poly, clear: Terms) -> Terms:
    """gap * clear with sums that are left with a positive power multiplied out."""
    result: Terms = {}
    ((extra, _),) = clear
    for m in gap.terms:
        merged = dict(m.factors)
        for factor, e in extra:
            merged[factor] = merged.get(factor, Fraction(0)) + e
        accumulate(result, forms.reduced(merged, m.bound), m.coefficient)
    return result


def prove_equal(system: System, left: str, right: str) -> Verdict:
    """Proved where algebra shows it; an unequal canonical form proves nothing, and is Unknown."""
    recurrent = {n for loop in recurrences(system) for n in loop.tensors()}
    a, b = (_written_out(system, n, recurrent) for n in (left, right))
    if a is None or b is None:
        return Unknown("the definitions are too long to be written out")
    forms = Canon(system)
    names = dict(zip(system.tensors[right].indices, system.tensors[left].indices, strict=True))
    b = build.substitute(b, {k: build.index(v) for k, v in names.items()}) if build.can_substitute(b, {}) else b
    if _equal(system, a, b, forms):
        return Proved("equality", "symbolic identity: equal canonical forms, for all sizes")
    matched = _matches(system, a, b, recurrent)
    for pairs in matched:
        joined = _identify(b, pairs)
        if _equal(system, a, joined, Canon(system)) and all(
            _same_update(system, x, y, pairs, recurrent) for x, y in pairs.items()
        ):
            shown = ", ".join(f"`{x}` = `{y}`" for x, y in pairs.items())
            return Proved("equality", f"bisimulation: {shown} by induction over the steps, then equal canonical forms")
    return Unknown("unequal canonical forms, which prove nothing")


def _equal(system: System, a: Node, b: Node, forms: Canon) -> bool:
    try:
        return equal(system, a, b, forms)
    except (RecursionError, AssertionError, KeyError, ValueError, OverflowError):
        return False


def _written_out(system: System, name: str, recurrent: set[str], depth: int = 30) -> Node | None:
    """The tensor's expression with every definition that is not recurrent opened."""
    tensor = system.tensors[name]
    node = (
        tensor.rhs
        if name not in recurrent
        else build.read(name, [build.index(i) for i in tensor.indices], tensor.dtype)
    )
    assert node is not None
    for _ in range(depth):
        opened = rebuild(node, lambda n: _definition(system, n, recurrent))
        if opened is node:
            return node
        node = opened
        if sum(1 for _ in walk(node)) > _LARGEST:
            return None
    return None


def _definition(system: System, node: Node, recurrent: set[str]) -> Node | None:
    if node.op != "read" or node.attr in recurrent:
        return None
    tensor = system.tensors[str(node.attr)]
    plain = all(a.op == "index" for a in node.args)
    if tensor.kind != "derived" or tensor.rhs is None or tensor.edges or not plain:
        return None
    at = dict(zip(tensor.indices, node.args, strict=True))
    return build.substitute(tensor.rhs, at) if build.can_substitute(tensor.rhs, at) else None


def _matches(system: System, a: Node, b: Node, recurrent: set[str]) -> list[dict[str, str]]:
    """Ways to match the states of the two sides, by position, where the axes agree."""
    left = [n for n in dict.fromkeys(str(r.attr) for r in walk(a) if r.op == "read") if n in recurrent]
    right = [n for n in dict.fromkeys(str(r.attr) for r in walk(b) if r.op == "read") if n in recurrent]
    if not left or len(left) != len(right) or len(left) > 3:
        return []
    from itertools import permutations

    found = []
    for order in permutations(right):
        if all(_axes(system, x) == _axes(system, y) for x, y in zip(left, order, strict=True)):
            found.append(dict(zip(left, order, strict=True)))
    return found


def _axes(system: System, name: str) -> list[str]:
    return [system.axis(i) for i in system.tensors[name].indices]


def _identify(node: Node, pairs: dict[str, str]) -> Node:
    """Read the left state where the right one is read: the induction hypothesis."""
    back = {y: x for x, y in pairs.items()}

    def change(n: Node) -> Node | None:
        return build.read(back[str(n.attr)], n.args, n.dtype) if n.op == "read" and n.attr in back else None

    return rebuild(node, change)


def _same_update(system: System, left: str, right: str, pairs: dict[str, str], recurrent: set[str]) -> bool:
    a, b = system.tensors[left], system.tensors[right]
    if a.edges or b.edges:
        if len(a.edges) != len(b.edges):
            return False
        for x, y in zip(a.edges, b.edges, strict=True):
            p, q = system.tensors[x.tensor].rhs, system.tensors[y.tensor].rhs
            if x.point is not y.point or p is None or q is None or not _equal(system, p, q, Canon(system)):
                return False
    updates = []
    for tensor in (a, b):
        assert tensor.rhs is not None
        opened: Node | None = tensor.rhs
        for _ in range(20):
            assert opened is not None
            more = rebuild(
                opened,
                lambda n: _definition(
                    system, n, set(pairs) | set(pairs.values()) | (recurrent - _aux(system, recurrent))
                ),
            )
            if more is opened:
                break
            opened = more
        assert opened is not None
        updates.append(opened)
    renamed = build.substitute(updates[1], {j: build.index(i) for i, j in zip(a.indices, b.indices, strict=True)})
    return _equal(system, updates[0], _identify(renamed, pairs), Canon(system))


def _aux(system: System, recurrent: set[str]) -> set[str]:
    """Recurrent tensors that are only read at the same step may be written out like any definition."""
    found = set()
    for name in recurrent:
        readers = [
            n for t in system.derived() if t.rhs is not None for n in walk(t.rhs) if n.op == "read" and n.attr == name
        ]
        if all(all(s.op == "index" for s in n.args) for n in readers):
            found.add(name)
    return found
