"""Claims that algebra decides: what it calls proved is a theorem, and what it cannot show is left open."""

from __future__ import annotations

import pytest

from seqdsl.algebra import Proved, Refuted, Unknown, Verdict, check_claim
from seqdsl.algebra import Tested as OnlyTested
from seqdsl.ir.system import System
from seqdsl.report import verdict_of
from seqdsl.semantics import load_system
from seqdsl.verify.claims import test_claim as tried

GRID = "mixer m(x[t,i,c], w[k,c]) -> y[t,i,c]:\n    index j over i, s over t, r over t\n{body}\n    claim {claim}\n"


def loaded(body: str, claim: str) -> System:
    return load_system(GRID.format(body="\n".join("    " + b.strip() for b in body.split(";")), claim=claim))


def algebra(system: System) -> Verdict:
    return check_claim(system, system.claims[-1])


PROVED = [
    ("causal(i)", "y[t,i,c] = x + x[t,i-1]"),
    ("causal(i)", "p[t,i,j,c] = softmax[j | j <= i](x[t,j]); y[t,i,c] = sum[j | j <= i] p * x[t,j]"),
    (
        "causal(t)",
        "p[t,s,i,c] = softmax[s | s <= t](x[s]); m[t,s,i,c] = sum[k] w[k] * p - p * p; y[t,i,c] = sum[s] m * x[s]",
    ),
    ("causal(t)", "p[t,s,r,i,c] = x * x[s] * x[r]; y[t,i,c] = sum[s,r | s <= t and r <= t] p * x[s]"),
    ("permutation(i)", "y[t,i,c] = x + max[j](x[t,j]) - mean[j](x[t,j])"),
    ("permutation(i)", "y[t,i,c] = x * sum[j | j != i] x[t,j] * softmax[j](x[t,j])"),
    ("shift(i)", "y[t,i,c] = x * x[t, (i + 1) % |i|] - x[t, (i - 3) % |i|] + sum[k] w * x[t, (i - k) % |i|]"),
    ("causal(t), shift(t)", "S[t,i,c] = 0.5 * S[t-1] + silu(x); y[t,i,c] = S * x[t-3]"),
    ("causal(t), shift(t, 2)", "y[t,i,c] = tanh(sum[k] w * x[t-k])"),
    ("linear(x)", "z[t,i,c] = x + 1i * x[t-1]; y[t,i,c] = re(z * exp(1i * t)) + im(z)"),
    ("linear(x)", "y[t,i,c] = (x + 1)^2 - x^2 - 1"),
    ("stable(y)", "y[t,i,c] = sigmoid(w[0]) * y[t-1] + x"),
    ("stable(S)", "S[t,i,c] = exp(1i * w[0] - w[0]^2) * S[t-1] + x; y[t,i,c] = re(S)"),
    ("stable(S)", "S[t,i,c] = (sigmoid(w[0]) / 2 - tanh(w[1]) / 2) * S[t-1] + x; y[t,i,c] = S"),
    ("rows_sum_to_one(p, j)", "p[t,i,j,c] = exp(x[t,j]) / sum[j] exp(x[t,j]); y[t,i,c] = sum[j] p * x[t,j]"),
]


@pytest.mark.parametrize(("claim", "body"), PROVED)
def test_theorems(claim: str, body: str) -> None:
    system = loaded(body, claim)
    assert isinstance(algebra(system), Proved)
    assert tried(system, system.claims[-1]).holds  # and numbers agree with the theorem


@pytest.mark.parametrize(
    ("claim", "body", "counts"),
    [
        ("causal(t)", "y[t,i,c] = x * |t|", "y` has `|t|"),
        ("causal(t)", "y[t,i,c] = where(t == |s| - 1, x, 0)", "y` has `|s|"),
        ("causal(t)", "y[t,i,c] = x * sum[s] s", "y` has `sum[s]"),
        ("causal(t)", "z[n: |t| + 1] = 1; y[t,i,c] = x / sum[n] z", "y` has `sum[n]"),
        ("causal(i)", "y[t,i,c] = x * |j|", "y` has `|j|"),
        ("causal(i)", "y[t,i,c] = x * |t|", ""),
        ("causal(t)", "y[t,i,c] = sum[s | s < t and s < |k|] x[s] / (t + 1) + |i|", ""),
        ("causal(t)", "z[n: |t|, c] = w[n]; y[t,i,c] = sum[n | n <= t] z * x[t-n]", ""),
    ],
)
def test_a_proof_of_causality_says_where_it_is_about_one_length(claim: str, body: str, counts: str) -> None:
    found = algebra(loaded(body, claim))
    assert isinstance(found, Proved)
    assert ("how many positions" in found.how) == bool(counts) and counts in found.how


OPEN = [
    ("causal(i)", "y[t,i,c] = x + x[t,i+1]"),
    ("causal(i)", "y[t,i,c] = x + x[t,i+1] * (i > 5)"),
    ("causal(i)", "y[t,i,c] = where(i == 30, x[t,i+1], x)"),
    ("causal(t)", "y[t,i,c] = x + x[t+1] * (t > 30)"),
    ("causal(t)", "y[t,i,c] = x + where(2 * x > 100 - w[0], x[t+1], 0)"),
    ("causal(i)", "y[t,i,c] = softmax[i](x)"),
    ("causal(i)", "p[t,i,j,c] = softmax[j](x[t,j]); y[t,i,c] = sum[j | j <= i] p * x[t,j]"),
    ("causal(i)", "p[t,i,j,c] = softmax[j | j <= i](x[t,j]) - 0.1; y[t,i,c] = sum[j] p * x[t,j]"),
    ("causal(t)", "p[t,s,i,c] = x * x[s]; y[t,i,c] = sum[s | t <= s] p[s,t]"),
    ("causal(t)", "p[s,t,i,c] = silu(x[s]); y[t,i,c] = sum[s] p[s,t]"),
    ("permutation(i)", "y[t,i,c] = x + i"),
    ("permutation(i)", "y[t,i,c] = sum[j | j <= i] x[t,j]"),
    ("permutation(i)", "y[t,i,c] = x + x[t,0]"),
    ("permutation(i)", "y[t,i,c] = cumsum[i](x)"),
    ("permutation(i)", "y[t,i,c] = where(i == 2, x, 0)"),
    ("permutation(i)", "y[t,i,c] = x * w[i]"),
    ("permutation(i)", "y[t,i,c] = where(i > 20, 2, 1) * x"),
    ("shift(i)", "y[t,i,c] = x + x[t,i-1]"),
    ("shift(i)", "y[t,i,c] = x[t, (2 * i) % |i|]"),
    ("shift(i)", "y[t,i,c] = x[t, |i| - 1 - i]"),
    ("causal(t), shift(t)", "S[t,i,c] = 0.5 * S[t-1] + x + 1; y[t,i,c] = S"),
    ("causal(t), shift(t)", "z[t,i,c] = exp(x); y[t,i,c] = z[t-2]"),
    ("causal(t), shift(t)", "y[t,i,c] = x * (t + 1)"),
    ("causal(t), shift(t)", "y[t,i,c] = x[t - t % 2]"),
    ("causal(t), shift(t)", "S[-1,i,c] = 1; S[t,i,c] = 0.5 * S[t-1] + x; y[t,i,c] = S"),
    ("causal(t), shift(t)", "y[t,i,c] = sum[s | s <= t] x[s] / (t + 1)"),
    ("linear(x)", "y[t,i,c] = x * x[t-1]"),
    ("linear(x)", "y[t,i,c] = x + 1e-9"),
    ("linear(x)", "y[t,i,c] = x + relu(x / 4 - 9)"),
    ("linear(x)", "y[t,i,c] = abs(x + 1i * x)"),
    ("stable(y)", "y[t,i,c] = 1.001 * y[t-1] + x"),
    ("stable(y)", "y[t,i,c] = 0.9 * y[t-1] + 0.9 * y[t,i-1] + x"),
    ("stable(y)", "y[t,i,c] = 0.9 * y[t-1] + 0.9 * y[t-2] + x"),
    ("stable(S)", "S[t,i,c] = (sigmoid(w[0]) + tanh(w[1])) * S[t-1] + x; y[t,i,c] = S"),
    ("rows_sum_to_one(p, j)", "p[t,i,j,c] = exp(x[t,j]) / (sum[j] exp(x[t,j]) + 1e-9); y[t,i,c] = sum[j] p * x[t,j]"),
    ("rows_sum_to_one(p, j)", "p[t,i,j,c] = x[t,j] / sum[j] x[t,j]; y[t,i,c] = sum[j] p * x[t,j]"),
]


@pytest.mark.parametrize(("claim", "body"), OPEN)
def test_what_is_false_is_never_called_proved(claim: str, body: str) -> None:
    assert isinstance(algebra(loaded(body, claim)), Unknown)


@pytest.mark.parametrize(("claim", "body"), [c for c in OPEN if "0.9" not in c[1] and "tanh" not in c[1]])
def test_what_is_false_is_refuted_with_numbers(claim: str, body: str) -> None:
    system = loaded(body, claim)
    found = verdict_of(system, system.claims[-1])
    assert isinstance(found, Refuted) and "|t| = " in found.counterexample


DECAY = "mixer m(x[t], a[t]) -> y[t]:\n    y[t] = exp(a) * y[t-1] + x\n    claim {claim}\n"


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ("stable(y)", Refuted),  # inputs that stand in an exponent are drawn above 0, too
        ("stable(y) when a <= 1", Refuted),
        ("stable(y) when a <= 0", Proved),
        ("linear(x) when a <= 0\n    claim stable(y)", Refuted),  # the domain of one claim is not the other's
        ("stable(y) when a < 0 and a > 1", Unknown),
        ("stable(y) when 0 < a < 0", Unknown),
        ("linear(x) when a == 1.0 and a == 2.0", Unknown),
    ],
)
def test_a_claim_is_about_all_that_its_condition_admits(claim: str, verdict: type[Verdict]) -> None:
    system = load_system(DECAY.format(claim=claim))
    found = verdict_of(system, system.claims[-1])
    assert isinstance(found, verdict)
    assert verdict is not Unknown or "never holds" in found.describe()


STEADY = "mixer m(x[t], a[t]) -> y[t]:\n    {body}\n    claim {claim}\n"


@pytest.mark.parametrize(
    ("body", "claim", "verdict"),
    [
        ("y[-1] = 1;y[t] = sigmoid(a) * y[t-1] + x", "linear(x)", Refuted),  # of x = 0 it is not 0
        ("y[-1] = 0;y[t] = sigmoid(a) * y[t-1] + x", "linear(x)", Proved),
        ("y[t] = 0.5 * y[t-1] + x", "shift(t)", Proved),  # zeros come in, whether or not causality is claimed
        ("y[-1] = 1;y[t] = 0.5 * y[t-1] + x", "shift(t)", Refuted),
        ("y[t] = clamp(a, -2, 1) * y[t-1] + x", "stable(y)", Refuted),  # where `a` stays below -1
        ("y[t] = (1 - a) * y[t-1] + x", "stable(y) when a >= 0", Refuted),
        ("y[t] = (1 - a) * y[t-1] + x", "stable(y) when 0 <= a <= 2", Proved),
    ],
)
def test_starts_and_inputs_that_stay_as_they_are(body: str, claim: str, verdict: type[Verdict]) -> None:
    system = load_system(STEADY.format(body=body.replace(";", "\n    "), claim=claim))
    assert isinstance(verdict_of(system, system.claims[-1]), verdict)


NORMED = (
    "mixer m(x[t,c], g[t], h[t]) -> y[t,c]:\n    index b over c\n    k[t,c] = l2_norm[c](x)\n    {}\n"
    "    y[t,c] = S - S[t-3]\n    claim stable(S){}\n"
)


@pytest.mark.parametrize(
    ("equation", "condition", "holds"),
    [
        ("S[t,c] = S[t-1] + 2 * sigmoid(g) * k * (x - sum[b] k[t,b] * S[t-1,b])", "", True),  # in the 2-norm
        ("S[t,c] = S[t-1] + 3 * sigmoid(g) * k * (x - sum[b] k[t,b] * S[t-1,b])", "", False),
        ("S[t,c] = 1.2 * S[t-1] - 0.5 * S[t-2] + x", "", True),  # rises at first
        ("S[t,c] = 1.2 * S[t-1] - 1.01 * S[t-2] + x", "", False),
        ("S[t,c] = 2 * S[t-1] - S[t-2] + x", "", False),
        ("S[t,c] = tanh(S[t-1] / 2 + x)", "", True),
        ("S[t,c] = exp(g) * S[t-1] + x", " when g <= 0.0001", False),  # at the end of what is admitted
        ("S[t,c] = (1 - 2.01 * sigmoid(g)) * S[t-1] + x", "", False),  # far out
        ("S[t,c] = S[t-1] / (0.999 + abs(g)) + x", "", False),  # at 0
        ("S[t,c] = (sigmoid(g + h) + sigmoid(-g - h)) * S[t-1] + x", "", True),
    ],
)
def test_stable_is_what_does_not_grow_without_end(equation: str, condition: str, holds: bool) -> None:
    system = load_system(NORMED.format(equation, condition))
    assert verdict_of(system, system.claims[-1]).holds == holds


FAR = """
mixer whole(x[t]) -> z[t]:
    z[t] = {whole}

mixer m(x[t]) -> y[t]:
    index s over t
    y[t] = {body}
    claim {claim}
"""


@pytest.mark.parametrize(
    ("whole", "body", "claim"),
    [
        ("z[t-1] + x", "sum[s | t - 64 < s <= t] x[s]", "y == whole(x)"),  # the same up to 64 positions
        ("x", "clamp(x, -10, 10)", "y == whole(x)"),
        ("x", "where(x > 50, 0, x)", "y == whole(x)"),
        ("x", "x + where(t == 100, 1, 0)", "y == whole(x)"),
        ("x", "sum[s | s <= t or s == 40] x[s]", "causal"),
        ("x", "sum[s | s <= t or t == 33] x[s]", "causal"),
        ("x", "sum[s | s <= t or x[s] == 0.25] x[s]", "causal"),
        ("floor(x + 0.5)", "round(x)", "y == whole(x)"),  # halves are rounded to even numbers
        ("x", "where(x == 0.123, 0, x)", "y == whole(x)"),
        ("x", "where(x > 20, x^2, x)", "linear(x)"),
    ],
)
def test_what_shows_beyond_the_numbers_in_the_equations_only(whole: str, body: str, claim: str) -> None:
    system = load_system(FAR.format(whole=whole, body=body, claim=claim), "m")
    assert isinstance(verdict_of(system, system.claims[-1]), Refuted)


CONDITION = "mixer m(x[t,c], a[t,c], z[t,c]: complex, n[t]: int, on[t]: bool) -> {out}:\n    {body}\n    claim {claim}\n"


@pytest.mark.parametrize(
    ("body", "claim", "verdict"),
    [
        # Inputs that do not meet a condition are no evidence against what it says.
        ("y[t,c] = exp(a) * y[t-1] + x", "stable(y) when not a > 0", OnlyTested),
        ("y[t,c] = a * y[t-1] + x", "stable(y) when a^2 <= 1", OnlyTested),
        ("y[t,c] = a * y[t-1] + x", "stable(y) when 2 * a <= 2", Refuted),
        ("y[t,c] = 1 / a * y[t-1] + x", "stable(y) when abs(a) >= 1", OnlyTested),
        ("y[t,c] = a * y[t-1, (c + 1) % |c|] + x", "stable(y) when abs(a) <= 1", OnlyTested),
        ("y[t,c] = a * y[t-1] + x", "stable(y) when a - a > 1", Unknown),
        # What it says of some entries is not said of the others.
        ("y[t,c] = 2 * sigmoid(a) * y[t-1] + x", "stable(y) when a[0,c] <= 0", Refuted),
        ("y[t,c] = a * y[t-1] + x", "stable(y) when abs(a[t,0]) <= 1", Refuted),
        ("y[t,c] = 2 * (1 - a[t-1]) * y[t-1] + x", "stable(y) when 0.5 <= a <= 1.5", Refuted),  # a[-1] is 0
        ("y[t,c] = (1 - a[t-1]) * y[t-1] + x", "stable(y) when 0 <= a <= 2", Proved),
        ("S[t,c] = z * S[t-1] + x; y[t,c] = re(S)", "stable(S) when -1 <= re(z) <= 1", Refuted),
        ("S[t,c] = z[t-1] * S[t-1] + x; y[t,c] = re(S)", "stable(S) when abs(z) <= 1", Proved),
        # `%` has the sign of its divisor; the largest of nothing is -inf.
        ("y[t,c] = exp(-(x % a)) * y[t-1]", "stable(y)", Refuted),
        ("y[t,c] = exp(-(x % a)) * y[t-1]", "stable(y) when a > 0", Proved),
        (
            "index s over t; m[t,c] = max[s | s < t](sigmoid(a[s])); y[t,c] = clamp(m, -2, 0.5) * y[t-1] + x",
            "stable(y)",
            Refuted,
        ),
        # Whole numbers and conditions of the future are the future, too.
        ("y[t,c] = x * n[t+1]", "causal", Refuted),
        ("y[t,c] = where(on[t+1], x, 0)", "causal", Refuted),
        ("y[t,c] = x[n]", "causal when n <= t", OnlyTested),
        # A constant is not linear in what it does not depend on.
        ("y[t,c] = a", "linear(x)", Refuted),
        ("y[t,c] = x; w[t,c] = a", "linear(x)", Proved),  # said of y
        ("y[t,c] = abs(x + a) - abs(a); w[t,c] = a", "linear(x)", Refuted),
        ("y[t,c] = relu(x) - relu(-x); w[t,c] = a", "linear(x)", OnlyTested),
    ],
)
def test_a_claim_is_tried_where_its_condition_holds_and_nowhere_else(body: str, claim: str, verdict: type[Verdict]) -> None:
    out = "y[t,c], w[t,c]" if "w[t,c]" in body else "y[t,c]"
    text = CONDITION.format(out=out, body="\n    ".join(b.strip() for b in body.split(";")), claim=claim)
    system = load_system(text)
    assert isinstance(verdict_of(system, system.claims[-1]), verdict)


def test_a_branch_that_reads_ahead_where_the_past_is_right_is_found() -> None:
    """After two positive entries, at one position in two."""
    text = """mixer ahead(x[t,c]) -> y[t,c]:
    h[t,c] = where(h[t-1] > 0, x, x[t-1])
    y[t,c] = where(t % 2 == 0, h[t // 2 * 2 + 1], x)
    claim causal
"""
    system = load_system(text)
    assert isinstance(verdict_of(system, system.claims[-1]), Refuted)


PLACES = "mixer m(x[t,c], a[t,c], n[t,c]: int) -> y[t,c]:\n    y[t,c] = {body}\n    claim {claim}\n"


@pytest.mark.parametrize(
    ("body", "claim", "verdict"),
    [
        ("x[floor(x)]", "linear(x)", Refuted),  # where it is read depends on it
        ("a[floor(x)]", "linear(x)", Refuted),
        ("x[floor(a)]", "linear(x)", Proved),
        ("x[t - n]", "causal", Refuted),  # n may be negative
        ("x[t - n]", "causal when n >= 0", OnlyTested),
        ("linear[c -> c](x)", "cost(y) <= |t| * |c|^2", Proved),
        ("linear[c -> c](x)", "cost(y) <= |t|^2 * |c|", Refuted),
    ],
)
def test_places_that_depend_on_values_and_powers_in_bounds(body: str, claim: str, verdict: type) -> None:
    system = load_system(PLACES.format(body=body, claim=claim))
    assert isinstance(verdict_of(system, system.claims[0]), verdict)


def test_parameters_are_moved_from_where_they_begin() -> None:
    text = "mixer m(x[t,c]) -> y[t,c]:\n    param w[c] = {}\n    y[t,c] = {}\n    claim {}\n"
    for start, body, claim in ((0, "x + w", "linear(x)"), (1, "x * w", "permutation(c)"), (1, "x * w", "shift(c)")):
        system = load_system(text.format(start, body, claim))
        assert isinstance(verdict_of(system, system.claims[0]), Refuted)
    system = load_system(text.format(0, "x + w", "linear(x) when w == 0.0"))
    assert not isinstance(verdict_of(system, system.claims[0]), Refuted)
