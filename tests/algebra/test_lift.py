"""A step is the action of its lift: shown of every update, and noticed where it is not so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seqdsl.algebra import Proved, classify_all
from seqdsl.algebra.affine import split_update, states_and_updates
from seqdsl.algebra.lift import step_by_lift
from seqdsl.ir import build
from seqdsl.ir.dependence import recurrences
from seqdsl.semantics import load_system

GATED = """
mixer m(q[t,h,d], k[t,h,d], v[t,h,e], a[t,h,d], b[t,h]) -> o[t,h,e]:
    P[t,h,d,e] = exp(a) * S[t-1]
    r[t,h,e]   = sum[d] k * P
    S[t,h,d,e] = P + b * k * (v - r)
    o[t,h,e]   = sum[d] q * S
"""


def taken_apart(text: str):
    system = load_system(text)
    (loop,) = recurrences(system)
    (update,) = states_and_updates(system, loop)
    return system, update, *split_update(system, update.rhs, (update.state.name,))


def test_the_terms_of_a_step_add_up_to_it() -> None:
    assert isinstance(step_by_lift(*taken_apart(GATED)), Proved)


def test_an_inner_sum_does_not_capture_what_stands_before_it() -> None:
    _, update, terms, _ = taken_apart(GATED)
    (inner,) = [t for t in terms if t.over]
    assert not set(inner.over) & set(update.state.indices)
    assert {"d", *inner.over} <= inner.coefficient.free


@pytest.mark.parametrize("mutant", ["a decay is dropped", "the left vector is the right one", "a sign", "the write"])
def test_terms_that_do_not_add_up_are_noticed(mutant: str) -> None:
    system, update, terms, rest = taken_apart(GATED)
    plain, inner = sorted(terms, key=lambda t: len(t.over))
    if mutant == "a decay is dropped":
        plain = replace(plain, coefficient=build.ONE)
    elif mutant == "the left vector is the right one":
        moved = build.substitute(inner.coefficient, {"d": build.index(inner.over[0])})
        inner = replace(inner, coefficient=moved)
    elif mutant == "a sign":
        inner = replace(inner, coefficient=build.neg(inner.coefficient))
    else:
        rest = build.add(rest, build.ONE)
    with pytest.raises(AssertionError, match="do not add up"):
        step_by_lift(system, update, [plain, inner], rest)


def test_where_algebra_does_not_decide_numbers_do() -> None:
    text = "mixer m(x[t,c], a[t,c]) -> y[t,c]:\n    y[t,c] = floor(a) * y[t-1] + max(x, a) * 2\n"
    (found,) = classify_all(load_system(text))
    assert all(v.holds for v in found.lift) and found.lift
