"""Claims of equality, and near misses: the verdict says how it is known, and a refutation shows the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from seqdsl.algebra import Proved, Refuted, Unknown, Verdict
from seqdsl.algebra import Tested as Tried  # pytest would collect a class `Test..`
from seqdsl.algebra.numbers import NoValue, TooMuch
from seqdsl.ir.sizes import Sizes
from seqdsl.ir.system import Claim, System
from seqdsl.report import verdict_of
from seqdsl.semantics import load_system
from seqdsl.verify import equality
from seqdsl.verify.inputs import draw_inputs, draw_sizes

POINT = "mixer m(x[t], y[t], g[t]) -> z[t]:\n    index s over t\n    z[t] = {}\n    claim z == {} {}\n"


def verdict(text: str) -> Verdict:
    system = load_system(text, "m")
    return verdict_of(system, system.claims[-1])


def pointwise(left: str, right: str, condition: str = "") -> Verdict:
    return verdict(POINT.format(left, right, condition))


@pytest.mark.parametrize(
    ("left", "right"),
    [("sigmoid(-x)", "1 - sigmoid(x)"), ("exp(exp(x) * exp(y))", "exp(exp(x + y))"), ("log(exp(x) * exp(y))", "x + y"),
     ("softplus(x) - softplus(-x)", "x"), ("silu(x)", "x / (1 + exp(-x))"),
     ("max(x, -inf) + y", "x + y"), ("0 * exp(x - max(-inf, y)) + x", "x")],
)  # fmt: skip
def test_identities_of_exp_are_proved(left: str, right: str) -> None:
    found = pointwise(left, right)
    assert isinstance(found, Proved) and "canonical forms" in found.how


@pytest.mark.parametrize(
    ("left", "right"),
    [("relu(x) - relu(-x)", "x"), ("max(x, y) + min(x, y) - y", "x"), ("floor(x)", "x - x % 1"),
     ("max(sigmoid(x), sigmoid(y))", "sigmoid(max(x, y))"), ("elu(x)", "max(x, 0) + min(exp(x) - 1, 0)")],
)  # fmt: skip
def test_identities_of_order_are_tested_exactly(left: str, right: str) -> None:
    found = pointwise(left, right)
    assert isinstance(found, Tried) and found.worst == 0
    assert "tower of prime fields" in found.how and "rationals" in found.how


@pytest.mark.parametrize(("left", "right"), [("sin(x)^2 + cos(x)^2", "1.0"), ("sqrt(x^2)", "abs(x)"),
                                             ("sin(2 * x)", "2 * sin(x) * cos(x)")])  # fmt: skip
def test_identities_of_other_functions_are_tested_to_the_digits_they_were(left: str, right: str) -> None:
    found = pointwise(left, right)
    assert isinstance(found, Tried) and found.worst == 1e-40 and "50 digits" in found.how


@pytest.mark.parametrize(
    ("left", "right"),
    [("exp(x + y)", "exp(x) * exp(y) + 1e-9"), ("sin(x)", "sin(x + 1e-9)"), ("sigmoid(x)", "sigmoid(x * (1 + 1e-12))"),
     ("sum[s | s <= t] x[s]", "sum[s | s < t] x[s]"), ("sqrt(x^2)", "x"), ("max(x, y)", "x + 1e-30"),
     ("where(t < 3, x, y)", "where(t <= 3, x, y)"), ("sqrt(12.0) * x", "-2 * sqrt(3.0) * x"), ("exp(log(x^2))", "-(x^2)"),
     ("sum[s | s > t - 11] x[s]", "sum[s] x[s]")],
)  # fmt: skip
def test_near_misses_are_refuted_with_two_numbers_that_differ(left: str, right: str) -> None:
    found = pointwise(left, right)
    assert isinstance(found, Refuted)
    shown = dict(found.data)
    assert shown["left"] != shown["right"] and shown["left"] in found.counterexample
    assert "with x = " in found.counterexample and "|t| = " in found.counterexample


@pytest.mark.parametrize(
    ("left", "right"),
    [("n", "abs(n)"), ("n % 1000", "n"), ("where(n > 100, 0, n)", "n"), ("where(n == 7, 0, n)", "n"), ("n", "n % 5")],
)  # fmt: skip
def test_integers_are_of_either_sign_and_of_any_size(left: str, right: str) -> None:
    found = verdict(f"mixer m(n[t]: int) -> z[t]:\n    z[t] = {left}\n    claim z == {right}\n")
    assert isinstance(found, Refuted)
    held = verdict(f"mixer m(n[t]: int) -> z[t]:\n    z[t] = {left}\n    claim z == {right} when 0 <= n < 5\n")
    assert not isinstance(held, Refuted)


def test_integers_of_bit_functions_and_places_stay_where_these_have_values() -> None:
    bits = verdict("mixer m(n[t]: int, x[t]) -> z[t]:\n    z[t] = xor(n, 1) + x[n]\n    claim z == xor(1, n) + x[n]\n")
    assert isinstance(bits, Tried)


@pytest.mark.parametrize(("left", "right"), [("log(exp(w))", "w"), ("sqrt(exp(w))", "exp(w / 2)"), ("exp(w)^a", "exp(a * w)")])
def test_complex_logarithms_and_powers_are_tried_beyond_a_half_turn(left: str, right: str) -> None:
    found = verdict(f"mixer m(w[t]: complex, a[t]) -> z[t]:\n    z[t] = {left}\n    claim z == {right}\n")
    assert isinstance(found, Refuted)


def test_a_proof_says_where_it_speaks_of_values() -> None:
    for right, where in (("x", "roots have values"), ("x / y * y", "no denominator is 0 and logarithms and roots have values")):
        found = pointwise("exp(log(x))", right)
        assert isinstance(found, Proved) and found.how.endswith(where)


def test_sums_with_infinities_do_not_cancel() -> None:
    assert not isinstance(pointwise("x + inf - inf", "x"), Proved)
    assert not isinstance(pointwise("max(x, inf) - max(x, inf) + y", "y + 0 * x"), Proved)


def test_numbers_are_evaluated_only_where_residues_do_not_settle_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "evaluate", lambda *given: pytest.fail("there is no need of numbers"))
    found = pointwise("max(sigmoid(x), sigmoid(y)) / sqrt(|t|)", "sigmoid(max(x, y)) / sqrt(|t|)")
    assert isinstance(found, Tried) and "tower of prime fields" in found.how
    with pytest.raises(pytest.fail.Exception):
        pointwise("sqrt(x^2) * sqrt(y^2)", "sqrt(x^2 * y^2)")


def test_different_formulas_that_digits_do_not_tell_apart_are_unknown() -> None:
    assert isinstance(pointwise("exp(x + 1.0)", "exp(x) * exp(1.0) * (1 + 1e-45)"), Unknown)


def test_a_condition_is_respected_and_nothing_beyond_it() -> None:
    assert isinstance(pointwise("sqrt(x^2)", "x", "when x >= 0"), Tried)
    assert isinstance(pointwise("abs(x) * g", "x * g", "when x >= 0"), Tried)
    found = pointwise("abs(x) * g", "x * g", "when g >= 0")
    assert isinstance(found, Refuted) and "x = " in found.counterexample


def test_two_sides_that_part_beside_the_end_of_a_condition_only_are_refuted() -> None:
    assert isinstance(pointwise("relu(x)", "x", "when x >= -0.001"), Refuted)
    assert isinstance(pointwise("relu(x)", "x", "when x >= 0"), Tried)


def test_an_option_is_tried_where_the_lengths_exceed_it() -> None:
    window = "mixer m(x[t]; W = 100) -> z[t]:\n    index s over t\n    z[t] = sum[s | t - W < s <= t] x[s]\n"
    assert isinstance(verdict(f"{window}    claim z == cumsum[t](x)\n"), Refuted)
    assert isinstance(verdict(f"{window}    claim z == cumsum[t](x) when |t| <= W\n"), Tried)


def test_sizes_are_sought_that_meet_a_condition() -> None:
    turn = "mixer m(x[t,i]; w = 8) -> y[t,i]:\n    y[t,i] = x[t, i - i % w + (i + 1) % w]\n"
    assert isinstance(verdict(f"{turn}    claim shift(i, w) when |i| % w == 0\n"), Tried)
    assert isinstance(verdict(f"{turn}    claim shift(i) when |i| % w == 0\n"), Refuted)


def test_a_special_case_of_one_claim_is_not_the_domain_of_another() -> None:
    text = "mixer m(x[t], a[t]) -> z[t]:\n    z[t] = x + a * x^2\n    claim z == x when a == 0.0\n    claim {}\n"
    assert isinstance(verdict(text.format("z == x")), Refuted)
    assert isinstance(verdict(text.format("linear(x)")), Refuted)
    system = load_system(text.format("causal"), "m")
    sizes = draw_sizes(system, np.random.default_rng(0), stream=5)
    assert draw_inputs(system, sizes, np.random.default_rng(0))["a"].any()


def test_a_refutation_has_small_numbers() -> None:
    found = pointwise("x * y", "x * y + g")
    assert isinstance(found, Refuted)
    assert found.counterexample == (
        "the two sides differ at t = 0: 0 and 1; with x = 0; y = 0; g = 1; sizes |t| = 1, |s| = 1"
    )


GATED = """
mixer gated(q[t,d], k[t,d], v[t,e], a[t]) -> o[t,e]:
    S[t,d,e] = exp(a) * S[t-1] + k * v
    o[t,e]   = sum[d] q * S

mixer other(q[t,d], k[s,d], v[s,e], a[t]) -> o[t,e]:
    index s over t
    A[t]   = A[t-1] + a
    p[t,s] = sum[d] q * k
    o[t,e] = sum[s | {guard}] exp({decay}) * p * v

mixer m(q[t,d], k[t,d], v[t,e], a[t]) -> o[t,e]:
    o = gated(q, k, v, a)
    claim o == other(q, k, v, a)
"""


@pytest.mark.parametrize(
    ("guard", "decay"),
    [("s < t", "A[t] - A[s]"), ("s <= t", "A[t] - A[s] + a[s]"), ("s <= t", "A[t]"),
     ("s <= t", "(A[t] - A[s]) * (1 + 1e-9)"), ("s <= t and t - s < 5", "A[t] - A[s]")],
)  # fmt: skip
def test_a_mask_off_by_one_or_a_decay_dropped_is_refuted(guard: str, decay: str) -> None:
    found = verdict(load_text(guard, decay))
    assert isinstance(found, Refuted) and "the two sides differ at t = " in found.counterexample


def test_the_masked_sum_of_a_gated_recurrence_holds() -> None:
    assert verdict(load_text("s <= t", "A[t] - A[s]")).holds


def test_a_budget_that_ends_at_the_first_steps_leaves_the_rest_to_floats() -> None:
    heavy = "sum[s, i: 100, j: 100 | s <= t] x[s] * max(i - i + j - j {}, 0)"
    found = pointwise("(" + heavy.format("+ (i == j)") + ") / 100", "sum[s | s <= t] x[s]")
    assert isinstance(found, Tried) and "float64" in found.how
    late = "(" + heavy.format("+ (i == j) * (t < 2)") + ") / 100"
    assert isinstance(pointwise(late, "sum[s | s <= t] x[s]"), Refuted)


@pytest.mark.parametrize("failure", [TooMuch("more than fits"), NoValue("`solve`")])
def test_lengths_beyond_one_that_has_no_exact_value_are_not_tried(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    lengths: list[int] = []

    def fails(system: System, claim: Claim, sizes: Sizes, inputs: object) -> None:
        lengths.append(sizes["t"])
        raise failure

    monkeypatch.setattr(equality, "compare", fails)
    (claim,) = load_system(POINT.format("relu(x) - relu(-x)", "x", ""), "m").claims
    assert claim.system is not None and isinstance(equality.test_equality(claim.system, claim), Unknown)
    assert lengths and set(lengths) == {min(lengths)}


def load_text(guard: str, decay: str) -> str:
    return GATED.format(guard=guard, decay=decay)


def test_sizes_that_fit_half_of_the_lengths_are_enough() -> None:
    pairs = "mixer m(x[t]) -> y[t]:\n    e[u: |t| / 2, p: 2] = tanh(x[2 * u + p])\n    y[t] = e[t // 2, t % 2]\n"
    assert isinstance(verdict(pairs + "    z[t] = erf(x)\n    claim y == z\n"), Refuted)
    assert isinstance(verdict(pairs + "    claim shift(t, 2)\n"), Tried | Proved)
