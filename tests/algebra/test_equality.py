"""Equal recurrences are proved: by a map between their states, by their first taps, as the sums that they are."""

from __future__ import annotations

import pytest

from seqdsl.algebra import Proved, Unknown, Verdict, prove_equal
from seqdsl.algebra.equality import assuming
from seqdsl.semantics import load_system

MIXER = """
mixer m({header}) -> y[t,c]:
{left}
    claim y == f({names}) {condition}

mixer f({header}) -> y[t,c]:
{right}
"""


def proof(left: str, right: str, header: str = "x[t,c], a[c], b[c], g[t,c]", condition: str = "") -> Verdict:
    names = ", ".join(part.partition("[")[0].strip() for part in header.split("],"))
    sides = {"left": left, "right": right}
    lines = {k: "\n".join("    " + line.strip() for line in v.split(";")) for k, v in sides.items()}
    system = load_system(MIXER.format(header=header, names=names, condition=condition, **lines), "m")
    (claim,) = system.claims
    assert claim.system is not None
    return prove_equal(claim.system, claim)


def is_proved(verdict: Verdict, how: str) -> bool:
    return isinstance(verdict, Proved) and how in verdict.how


DECAYED = "S[t,c] = exp(g) * S[t-1] + x; y[t,c] = S"


def test_a_state_may_be_scaled_by_a_factor_that_is_itself_a_recurrence() -> None:
    found = proof(DECAYED, "G[t,c] = G[t-1] + g; S[t,c] = S[t-1] + exp(-G) * x; y[t,c] = exp(G) * S")
    assert is_proved(found, "`S` = `exp(")


@pytest.mark.parametrize(
    "right",
    ["G[t,c] = G[t-1] + g; S[t,c] = S[t-1] + exp(-G) * x; y[t,c] = exp(G[t-1]) * S",
     "G[t,c] = G[t-1] + 2 * g; S[t,c] = S[t-1] + exp(-G) * x; y[t,c] = exp(G) * S",
     "G[-1,c] = 1; G[t,c] = G[t-1] + g; S[-1,c] = 1; S[t,c] = S[t-1] + exp(-G) * x; y[t,c] = exp(G) * S",
     "S[t,c] = exp(g) * S[t-1] + x * (1 + 1e-9); y[t,c] = S", "S[t,c] = S[t-1] + x; y[t,c] = S"],
)  # fmt: skip
def test_no_factor_is_found_where_there_is_none(right: str) -> None:
    assert isinstance(proof(DECAYED, right), Unknown)


def test_a_constant_factor_goes_through_the_base_case() -> None:
    left = "h[-1,c] = {0}; h[t,c] = a * h[t-1] + x; y[t,c] = h"
    right = "h[-1,c] = {0}; h[t,c] = a * h[t-1] + 2 * x; y[t,c] = h / 2"
    assert is_proved(proof(left.format(1), right.format(2)), "`2` * `h`")
    assert isinstance(proof(left.format(1), right.format(1)), Unknown)
    assert isinstance(proof(left.format(1), right.format(2).replace("h[-1,c] = 2; ", "")), Unknown)


MATRIX = "q[t,d], k[t,d], v[t,c], b[t]"


def test_the_axes_of_a_state_may_be_in_another_order() -> None:
    left = "S[t,d,c] = S[t-1] - b * k * (sum[d] k * S[t-1] - v); y[t,c] = sum[d] q * S"
    right = "r[t,c] = sum[d] k * S[t-1]; S[t,c,d] = S[t-1] + b * k * (v - r); y[t,c] = sum[d] q * S"
    assert is_proved(proof(left, right, MATRIX), "axes permuted")
    assert isinstance(proof(left, right.replace("sum[d] q", "sum[d] k"), MATRIX), Unknown)


def test_a_stabilised_recurrence_is_the_plain_one() -> None:
    left = ("m[-1,c] = -inf; m[t,c] = max(a + m[t-1], g); n[t,c] = exp(a + m[t-1] - m) * n[t-1] + exp(g - m) * x;"
            "y[t,c] = n / max(abs(n), exp(-m))")  # fmt: skip
    right = "n[t,c] = exp(a) * n[t-1] + exp(g) * x; y[t,c] = n / max(abs(n), {})"
    assert is_proved(proof(left, right.format(1)), "bisimulation")
    assert isinstance(proof(left, right.format(2)), Unknown)


LAGGED = "y[t,c] = (a + b) * y[t-1] - a * b * y[t-2] + x"


@pytest.mark.parametrize(
    ("right", "states"),
    [("u[t,c] = a * u[t-1] + x; y[t,c] = b * y[t-1] + u", 4),
     ("u[t,c] = a * u[t-1] + x; w[t,c] = b * w[t-1] + x; y[t,c] = (a * u - b * w) / (a - b)", 4),
     ("u[t,c] = x + (a + b) * u[t-1] - a * b * u[t-2]; y[t,c] = u", 4)],
)  # fmt: skip
def test_time_invariant_systems_are_equal_where_their_first_taps_are(right: str, states: int) -> None:
    assert is_proved(proof(LAGGED, right), f"of {states} states together: equal first {states + 1} taps")


@pytest.mark.parametrize(
    "right",
    ["u[t,c] = a * u[t-1] + x; y[t,c] = b * y[t-1] + u[t-1]", "y[t,c] = (a + b) * y[t-1] + x",
     "u[t,c] = a * u[t-1] + x; y[t,c] = b * y[t-1] + u + x[t-4] - x[t-4] * (1 + 1e-9)",
     "y[t,c] = (a + b) * y[t-1] - a * b * y[t-2] + x + x[t-6]"],
)  # fmt: skip
def test_a_tap_that_differs_is_no_proof(right: str) -> None:
    assert isinstance(proof(LAGGED, right), Unknown)


@pytest.mark.parametrize("right", ["u[t,c] = a * u[t-1] + x; y[t,c] = b * y[t-1] + u * g",
                                   "u[t,c] = a * u[t-1] + x; y[t,c] = b * y[t-1] + u + g * 0 + 1"])  # fmt: skip
def test_taps_say_nothing_of_what_changes_with_time_or_has_an_offset(right: str) -> None:
    assert isinstance(proof(LAGGED, right), Unknown)


@pytest.mark.parametrize(
    ("left", "weight"),
    [(DECAYED, "exp(G[t] - G[s])"), ("S[t,c] = S[t-1] + x; y[t,c] = S", "1"),
     ("S[t,c] = a * S[t-1] + x; y[t,c] = S", "a ^ (t - s)"),
     ("S[t,c] = sigmoid(a) * S[t-1] + x; y[t,c] = S", "sigmoid(a) ^ (t - s)")],
)  # fmt: skip
def test_an_entrywise_recurrence_is_a_masked_sum(left: str, weight: str) -> None:
    right = "index s over t; G[t,c] = G[t-1] + g; y[t,c] = sum[s | {}] {} * x[s]"
    assert is_proved(proof(left, right.format("s <= t", weight)), "sums that they are")
    assert isinstance(proof(left, right.format("s < t", weight)), Unknown)


def test_a_reset_is_not_a_difference_of_running_sums() -> None:
    left = "S[t,c] = where(g > 0, exp(a), 0) * S[t-1] + x; y[t,c] = S"
    right = "index s over t; G[t,c] = G[t-1] + where(g > 0, a, -inf); y[t,c] = sum[s | s <= t] exp(G[t] - G[s]) * x[s]"
    assert isinstance(proof(left, right), Unknown)


def test_a_condition_that_fixes_an_input_is_used_where_the_input_is_inside_its_axis() -> None:
    right = "S[t,c] = S[t-1] + x; y[t,c] = S"
    assert is_proved(proof(DECAYED, right, condition="when g == 0.0"), "bisimulation")
    assert isinstance(proof(DECAYED, right, condition="when g <= 0"), Unknown)
    assert isinstance(proof("y[t,c] = g[t-1] * x", "y[t,c] = x", condition="when g == 1.0"), Unknown)
    assert assuming(load_system("mixer m(x[t]) -> y[t]:\n    y[t] = x\n"), None).outputs == ("y",)


def test_a_proof_says_what_it_leaves_out() -> None:
    assert is_proved(proof("y[t,c] = x / x", "y[t,c] = 1 + 0 * x"), "where no denominator is 0")
    found = proof("y[t,c] = x / 2 + x / 2", "y[t,c] = x")
    assert isinstance(found, Proved) and "denominator" not in found.how
