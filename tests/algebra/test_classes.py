"""Every recurrence of the library and every one without a name lands in its class, with its monoid and its verdicts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seqdsl.algebra import Proved, Refuted, classify_all, monoid_of, monoid_verdicts
from seqdsl.report import report
from seqdsl.semantics import load_file, load_system, lower_mixer, mixers

ROOT = Path(__file__).resolve().parent.parent
UNNAMED = sorted((ROOT / "unnamed").glob("*.seq"))


def expectations(path: Path) -> dict[str, str]:
    return dict(re.findall(r"(class|associative|identity)=([\w-]+)", "\n".join(path.read_text().split("\n")[:4])))


@pytest.mark.parametrize("path", UNNAMED, ids=lambda p: p.stem)
def test_a_recurrence_without_a_name_lands_in_its_class(path: Path) -> None:
    expected = expectations(path)
    file = load_file(path)
    system = lower_mixer(file, mixers(file)[0])
    kinds = [r.kind for r in classify_all(system)]
    wanted = {"affine-diagonal": "diagonal"}.get(expected["class"], expected["class"])
    if wanted == "monoid":
        assert system.monoids
    elif wanted == "none":
        assert kinds == []
    else:
        assert wanted in kinds


@pytest.mark.parametrize("path", [p for p in UNNAMED if "associative" in expectations(p)], ids=lambda p: p.stem)
def test_declared_monoids_get_the_right_verdict(path: Path) -> None:
    expected = expectations(path)
    file = load_file(path)
    system = lower_mixer(file, mixers(file)[0])
    (name,) = system.monoids
    verdicts = monoid_verdicts(system, name)
    assert verdicts["associative"].holds is (expected["associative"] == "proved")
    if expected["associative"] == "proved":
        assert isinstance(verdicts["associative"], Proved)
    if "identity" in expected:
        assert isinstance(verdicts["identity"], Refuted)


TYPED = """
monoid m(x):
    identity = ({identity})
    {lift}
    combine(a, b):
        x = {combine}

mixer f(x[t]: {dtype}) -> y:
    y = m[t](x)
"""


@pytest.mark.parametrize(
    ("dtype", "lift", "combine", "identity", "associative", "neutral"),
    [
        ("complex", "lift(x) = x", "a.x * conj(b.x)", "1", False, False),  # of real numbers it is
        ("bool", "lift(x) = x", "a.x and b.x", "0 == 0", True, True),
        ("bool", "lift(x) = x", "a.x != b.x", "1 == 1", True, False),
        ("int", "lift(x) = x", "xor(a.x, b.x)", "0", True, True),  # of 6/5 it is not
        ("int", "lift(x) = x", "floor(a.x + b.x)", "0", True, True),
        ("real", "lift(x) = x", "floor(a.x + b.x)", "0", False, False),
        ("real", "lift(x) = exp(x)", "abs(a.x * b.x)", "1", True, True),  # of -1 it is not
        ("real", "lift(x) = x^2", "abs(a.x - b.x)", "0", False, True),
    ],
)
def test_a_law_is_of_the_elements_that_can_occur(
    dtype: str, lift: str, combine: str, identity: str, associative: bool, neutral: bool
) -> None:
    text = TYPED.format(dtype=dtype, lift=lift, combine=combine, identity=identity)
    verdicts = monoid_verdicts(load_system(text, "f"), "m")
    assert (verdicts["associative"].holds, verdicts["identity"].holds) == (associative, neutral)


MONOID = """
monoid m(x):
    {identity}
    combine(a, b):
        x = {combine}
    claim associative

mixer f(x[t]) -> y:
    y = m[t](x)
"""


def verdicts_of(combine: str, identity: str = "identity = (0)") -> dict[str, object]:
    return dict(monoid_verdicts(load_system(MONOID.format(combine=combine, identity=identity), "f"), "m"))


@pytest.mark.parametrize(
    ("combine", "associative", "commutative"),
    [
        ("a.x - b.x", False, False),
        ("a.x / b.x", False, False),
        ("(a.x + b.x) / 2", False, True),
        ("clamp(a.x + b.x, -1, 1)", False, True),
        ("a.x + b.x + 1", True, True),
        ("max(a.x, b.x)", True, True),
        ("a.x + b.x + 2 * a.x * b.x", True, True),
        ("a.x * b.x", True, True),
        ("b.x", True, False),
        ("logaddexp(a.x, b.x)", True, True),
    ],
)
def test_operators(combine: str, associative: bool, commutative: bool) -> None:
    found = verdicts_of(combine)
    assert found["associative"].holds is associative  # type: ignore[attr-defined]
    assert found["commutative"].holds is commutative  # type: ignore[attr-defined]


def test_a_refutation_has_the_smallest_numbers() -> None:
    verdict = verdicts_of("a.x - b.x")["associative"]
    assert isinstance(verdict, Refuted)
    assert verdict.counterexample == "x = 0; y = 0; z = 1: (x . y) . z and x . (y . z) give -1 and 1 in `m`"


def test_a_sum_that_saturates_is_refuted_where_it_saturates() -> None:
    verdict = verdicts_of("clamp(a.x + b.x, -1, 1)")["associative"]
    assert isinstance(verdict, Refuted)
    assert "1" in verdict.counterexample


def test_a_wrong_identity_is_refuted_beside_a_proved_associativity() -> None:
    found = verdicts_of("a.x + b.x + 1")
    assert isinstance(found["associative"], Proved)
    assert isinstance(found["identity"], Refuted)
    assert isinstance(verdicts_of("a.x + b.x + 1", "identity = (-1)")["identity"], Proved)


def test_gates_that_do_not_read_the_state_are_found_affine() -> None:
    (recurrence,) = classify_all(load_system("min_gru", "min_gru"))
    assert recurrence.kind == "diagonal"
    (recurrence,) = classify_all(load_system("gru", "gru"))
    assert recurrence.kind == "nonlinear"


def test_linearity_hidden_by_cancellation_is_found() -> None:
    text = "mixer f(x[t]) -> h[t]:\n    h[t] = (h[t-1] + x)^2 - h[t-1]^2 - x^2\n"
    (recurrence,) = classify_all(load_system(text))
    assert recurrence.kind == "diagonal"


@pytest.mark.parametrize(
    ("step", "ring"),
    [("max(a + S[t-1], x)", "max +"), ("min(a + S[t-1], x)", "min +"), ("logaddexp(S[t-1] + a, x)", "logaddexp +"),
     ("relu(S[t-1] + x)", "max +"), ("max(exp(a) * S[t-1], x)", "max *")],
)  # fmt: skip
def test_semirings(step: str, ring: str) -> None:
    system = load_system(f"mixer f(x[t], a[t]) -> S[t]:\n    S[t] = {step}\n")
    (recurrence,) = classify_all(system)
    assert (recurrence.kind, recurrence.ring) == ("semiring", ring)
    form = monoid_of(system, recurrence)
    assert form is not None and all(v.holds for _, v in form.verdicts)


@pytest.mark.parametrize(
    ("claim", "note"),
    [("causal", "changing inputs after"), ("linear(x)", "differs from"), ("y == x", "the two sides differ"),
     ("shift(t)", "does more than shift")],
)  # fmt: skip
def test_false_claims_are_refuted_with_numbers(claim: str, note: str) -> None:
    text = f"""
mixer f(x[t], a[t]) -> y[t]:
    S[t] = exp(a) * S[t-1] + x
    y[t] = S * S + x[t+1] + t
    claim {claim}
"""
    found = report(load_system(text))
    (diagnostic,) = found.refuted()
    assert diagnostic.code == "claim-refuted"
    assert note in diagnostic.notes[0] and "|t| = " in diagnostic.notes[0]
    assert diagnostic.span is not None and diagnostic.span.text == claim.split(" when")[0]


def test_growth_is_refuted_by_the_product_of_the_steps() -> None:
    text = "mixer f(x[t], a[t]) -> S[t]:\n    S[t] = exp(a) * S[t-1] + x\n    claim stable(S) when a >= 0\n"
    (diagnostic,) = report(load_system(text)).refuted()
    assert "end further apart" in diagnostic.notes[0]


def test_equal_recurrences_are_proved_by_bisimulation() -> None:
    found = report(load_system("retention", "retention"))
    verdict = next(v for c, v in found.claims if c.text == "o == gla(q, k, v, g)")
    assert isinstance(verdict, Proved) and "bisimulation" in verdict.how


@pytest.mark.parametrize(
    ("step", "element"),
    [
        ("max(y[t-1] + a, x)", "(a, b) over (max, +)"),
        ("max(y[t-1], y[t-1] + a, x)", "(a, b) over (max, +)"),
        ("max(y[t-1] + a, y[t-2], x)", "(A, b) over (max, +), A a matrix over the state's axes"),
        ("max(y[t-1] + a, y[t-1,c-1])", "(A, b) over (max, +), A a matrix over the state's axes"),
    ],
)
def test_a_ring_has_numbers_where_each_entry_reads_itself_alone(step: str, element: str) -> None:
    system = load_system(f"mixer m(x[t,c], a[t,c]) -> y[t,c]:\n    y[t,c] = {step}\n")
    (recurrence,) = classify_all(system)
    monoid = monoid_of(system, recurrence)
    assert monoid is not None and monoid.element == element
