"""Equality of piecewise linear expressions, decided by cases: sums and multiples of terms, their maxima and minima.

Each maximum is one of its operands, on the side where that is the larger one. What is left is linear there, and two such
functions, which are continuous, are equal if they are so in every case whose region has an interior. Other operators are
terms of their own, as if they could have any value: so True is a proof, and False proves nothing.

Entry point: `equal_by_cases`. Source: elimination of variables from inequalities is Fourier's and Motzkin's.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.order import Linear, linear

_CASES = 2000  # that are looked at; more are left undecided
_INEQUALITIES = 300  # beyond which a region is taken to have an interior
_EXTREMA = ("maximum", "minimum")


def equal_by_cases(a: Node, b: Node) -> bool:
    """Are two expressions equal for all values of their terms?"""
    gap = linear(build.make("sub", *(rebuild(side, _as_extrema) for side in (a, b))))
    return _is_zero(gap, (), [_CASES])


def _as_extrema(node: Node) -> Node | None:
    if node.op == "abs" and node.dtype != "complex":
        return build.make("maximum", node.args[0], build.neg(node.args[0]))
    if node.op == "relu":
        return build.make("maximum", node.args[0], build.ZERO)
    if node.op == "clamp":
        return build.make("minimum", build.make("maximum", node.args[0], node.args[1]), node.args[2])
    return None


def _is_zero(gap: Linear, region: tuple[Linear, ...], left: list[int]) -> bool:
    """Is a form 0 wherever those of the region are positive? `left` counts the cases that may still be looked at."""
    left[0] -= 1
    if not gap or not _has_interior(r for r in region if not any(map(_is_extremum, r))):
        return True
    term = next((t for form in (gap, *region) for t in form if t is not None and _is_extremum(t)), None)
    if term is None or left[0] < 0:
        return False
    first, second = (linear(a) for a in term.args)
    larger, smaller = (first, second) if term.op == "maximum" else (second, first)
    ahead = _plus(larger, smaller, Fraction(-1))
    for value, side in ((first, ahead), (second, _plus({}, ahead, Fraction(-1)))):
        if not _is_zero(_put(gap, term, value), tuple(_put(r, term, value) for r in (*region, side)), left):
            return False
    return True


def _is_extremum(term: Node | None) -> bool:
    return term is not None and term.op in _EXTREMA


def _put(form: Linear, term: Node, value: Linear) -> Linear:
    """A form with one of its terms written out."""
    if term not in form:
        return form
    return _plus({t: c for t, c in form.items() if t is not term}, value, form[term])


def _plus(form: Linear, other: Linear, factor: Fraction) -> Linear:
    sums = {t: form.get(t, Fraction(0)) + factor * other.get(t, Fraction(0)) for t in {**form, **other}}
    return {t: c for t, c in sums.items() if c}


def _has_interior(region: Iterable[Linear]) -> bool:
    """Can all of these forms be positive at once? One variable after the other is eliminated."""
    forms = [dict(r) for r in region]
    while True:
        if any(set(f) <= {None} and f.get(None, Fraction(0)) <= 0 for f in forms):
            return False
        variable = next((t for f in forms for t in f if t is not None), None)
        if variable is None or len(forms) > _INEQUALITIES:
            return True
        above = [f for f in forms if f.get(variable, Fraction(0)) > 0]
        below = [f for f in forms if f.get(variable, Fraction(0)) < 0]
        pairs = [_plus(_plus({}, f, 1 / f[variable]), g, -1 / g[variable]) for f in above for g in below]
        forms = [dict(f) for f in (*(f for f in forms if variable not in f), *pairs)]
