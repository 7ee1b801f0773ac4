"""Equality of two expressions by their canonical forms (DERIVATIONS 6.1); of two tensors of a system, see `equality`."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from seqdsl.algebra.canon import Canon
from seqdsl.algebra.interval import Bounds
from seqdsl.algebra.poly import ONE, Poly, Terms, accumulate, ordered
from seqdsl.ir.node import Node, read_names, walk
from seqdsl.ir.ops import bound, make
from seqdsl.ir.system import System
from seqdsl.semantics.types import not_empty

_COUNTING = ("mean", "softmax", "rms_norm", "layer_norm")  # operators that are 0 where a guard leaves nothing to divide by
_PARTIAL = ("log", "log1p", "log2", "sqrt", "inv_softplus")  # operators without a value below some number


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


def where_defined(system: System, sides: Iterable[Node]) -> str:
    """The points that a proof of equality speaks of, where it does not speak of all: those at which every operator has a
    value, and at which what is divided by a count or a sum has something to count."""
    nodes, bounds = [n for side in sides for n in walk(side)], Bounds(system)

    def varies(node: Node) -> bool:
        low = bounds.of(node)[0]
        return bool(read_names(node)) or bool(node.free) and not (low is not None and low > 0)

    fraction = any(n.op == "div" and varies(n.args[1]) for n in nodes)
    root = any((n.op in _PARTIAL or n.op == "pow" and n.args[1].dtype != "int") and varies(n.args[0]) for n in nodes)
    empty = any(n.op in _COUNTING and not not_empty(system, n.args[1], bound(n)) for n in nodes)
    said = ["no denominator is 0"] * fraction + ["logarithms and roots have values"] * root
    said += ["no guard of a mean or a normaliser leaves nothing"] * empty
    return f", where {' and '.join(said)}" if said else ""


def same(system: System, a: Node, b: Node) -> bool:
    """`equal`, and False for what the canonical form does not cover, which proves nothing either."""
    try:
        return equal(system, a, b)
    except (RecursionError, AssertionError, KeyError, ValueError, OverflowError):
        return False
