"""Equality of two expressions by their canonical forms (DERIVATIONS 6.1); of two tensors of a system, see `equality`."""

from __future__ import annotations

from fractions import Fraction

from seqdsl.algebra.canon import Canon
from seqdsl.algebra.poly import ONE, Poly, Terms, accumulate, ordered
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.system import System


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


def same(system: System, a: Node, b: Node) -> bool:
    """`equal`, and False for what the canonical form does not cover, which proves nothing either."""
    try:
        return equal(system, a, b)
    except (RecursionError, AssertionError, KeyError, ValueError, OverflowError):
        return False
