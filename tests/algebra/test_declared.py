"""Laws of declared monoids: what shows only beyond a number, what is decided by cases, and elements that cannot occur."""

from __future__ import annotations

import time

import pytest

import seqdsl
from seqdsl.algebra import Proved, Refuted, Verdict
from seqdsl.algebra.declared import monoid_verdicts
from seqdsl.algebra.piecewise import equal_by_cases
from seqdsl.diagnostics import SeqError
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.semantics import load_system


def laws(combine: str, identity: str = "0", lift: str = "x[s]") -> dict[str, Verdict]:
    text = (
        "mixer f(x[t]) -> y[t]:\n    index s over t\n"
        f"    y[t] = M[s | s <= t]({lift})\n\n"
        f"monoid M(m):\n    identity = ({identity})\n    combine(a, b):\n        m = {combine}\n"
    )
    return monoid_verdicts(load_system(text), "M")


@pytest.mark.parametrize("combine", [
    "min(a.m + b.m, 100)", "max(min(a.m + b.m, 127), -128)", "where(a.m > 100, 0, a.m + b.m)",
    "where(a.m == 0.125, 0, a.m) + b.m",
])  # fmt: skip
def test_what_shows_beyond_a_number_only_is_refuted(combine: str) -> None:
    found = laws(combine)
    assert isinstance(found["associative"], Refuted) and isinstance(found["identity"], Refuted)


@pytest.mark.parametrize("combine", [
    "max(a.m, b.m) + min(a.m, b.m)", "max(a.m, 3) + max(b.m, 3) - 3", "abs(a.m) + abs(b.m)", "relu(a.m) + relu(b.m)",
])  # fmt: skip
def test_maxima_between_which_all_is_linear_are_decided_by_cases(combine: str) -> None:
    start = time.process_time()
    found = laws(combine)["associative"]
    assert isinstance(found, Proved)
    assert time.process_time() - start < 5  # simplification of such terms took minutes


def test_cases_prove_nothing_false() -> None:
    x, y, z = (build.read(n, [], "real") for n in "xyz")

    def larger(a: Node, b: Node) -> Node:
        return build.make("maximum", a, b)

    assert equal_by_cases(larger(x, larger(y, z)), larger(larger(x, y), z))
    assert equal_by_cases(build.add(larger(x, y), build.make("minimum", x, y)), build.add(x, y))
    assert not equal_by_cases(larger(x, y), x)
    assert not equal_by_cases(larger(x, y), larger(x, z))
    assert not equal_by_cases(larger(x, build.const(3)), larger(x, build.const(4)))


@pytest.mark.parametrize(("combine", "lift"), [("max(a.m, b.m)", "s"), ("min(a.m + b.m, 255)", "s"),
                                               ("sqrt(a.m^2 + b.m^2)", "exp(x[s])")])  # fmt: skip
def test_laws_are_of_elements_that_occur(combine: str, lift: str) -> None:
    law = "associative" if "255" in combine else "identity"
    assert not isinstance(laws(combine, lift=lift)[law], Refuted)  # of what is not negative
    assert isinstance(laws(combine, lift=lift.replace("s", "s - 3") if lift == "s" else "x[s]")[law], Refuted)


def test_a_guarded_fold_needs_the_identity_that_it_declares() -> None:
    text = (
        "mixer f(x[t]) -> y[t]:\n    index s over t\n    y[t] = M[s | s < t](x[s])\n\n"
        "monoid M(m):\n    identity = (1)\n    combine(a, b):\n        m = a.m + b.m\n"
    )
    with pytest.raises(SeqError, match="claim-refuted"):
        seqdsl.load(text).derived()
    assert [d.code for d in seqdsl.load(text).check().refuted()] == ["claim-refuted"]
    assert seqdsl.load(text.replace("(1)", "(0)")).derived().system.outputs == ("y",)
