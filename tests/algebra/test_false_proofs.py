"""Claims that are false somewhere, and were called proved: each is false at the place that its name says."""

from __future__ import annotations

import pytest

import seqdsl
from seqdsl.algebra.verdict import Proved, Refuted

TRANSPOSED = """
mixer two(x[t,i,j], a[i,j], g[i,j]) -> y[t,i,j], z[t,i,j]:
    index j over i
    S[t,i,j] = a[i,j] * S[t-1] + x[t,i,j] + x[t,j,i]
    y[t,i,j] = S[t,i,j] + S[t,j,i]
    R[t,i,j] = (a[i,j] - g[i,j] - g[j,i]) * R[t-1] + (g[i,j] + g[j,i]) * R[t-1,j,i] + x[t,i,j] + x[t,j,i]
    z[t,i,j] = R[t,i,j] + R[t,j,i]
    claim y == z
"""
PAIR = "mixer c({inputs}) -> y[{at}], z[{at}]:\n    {y}\n    z[{at}] = {z}\n    claim y == z{when}\n"
STATE = "mixer c({inputs}) -> S[{at}]:\n    {before}S[{at}] = {step}\n    claim stable(S) when {when}\n"


def _pair(y: str, z: str, inputs: str = "x[t]", at: str = "t", when: str = "") -> str:
    return PAIR.format(inputs=inputs, at=at, y=y, z=z, when=when and f" when {when}")


def _state(step: str, when: str, inputs: str = "x[t], b[t]", at: str = "t", before: str = "") -> str:
    return STATE.format(inputs=inputs, at=at, step=step, when=when, before=before and f"{before}\n    ")


FALSE = {
    "from the fourth position on, where a state reads its transpose": TRANSPOSED,
    "where an index of one axis is beyond another": _pair("a[j: 3] = 1\n    y[i] = a[i] * x", "x", "x[i]", "i"),
    "beyond an axis as long as an option": "mixer c(x[i]; m = 3) -> y[i], z[i]:\n    a[j: m] = 1\n    y[i] = a[i] * x\n"
                                           "    z[i] = x\n    claim y == z\n",
    "in rows longer than what they are made of": "mixer c(x[t]) -> y[t, j: 4]:\n    a[k: 3] = 1 / 4\n    y[t, j] = a[j] + 0 * x\n"
                                                 "    claim rows_sum_to_one(y, j)\n",
    "beside what a condition says of a shorter axis": "mixer c(x[t,i], a[i]) -> S[t,i]:\n    p[k: 2] = a[k]\n"
        "    S[t,i] = a * S[t-1] + x\n    claim stable(S) when a[k] <= 1 and -1 <= a[k]\n",
    "at other positions than the first": _pair("y[t] = x", "0 * x", when="x[0] == 0.0"),
    "with a divisor below 0": "mixer c(x[t], n[t]: int) -> y[t]:\n    y[t] = x[t - t % n]\n    claim causal\n",
    "with a quotient by what is below 0": "mixer c(x[t], n[t]: int) -> y[t]:\n    y[t] = x[t // n * n]\n    claim causal\n",
    "where a clamp's bounds change places": _state("clamp(x, 0, b) * S[t-1] + x", "b <= 1"),
    "with an epsilon below 0": _state("l2_norm[d](x; eps = -1) * S[t-1] + b", "b <= 1", "x[t,d], b[t]", "t,d"),
    "where a shift reads what it shifts": "mixer c(x[i], w[i]) -> y[i]:\n    y[i] = x[(i + floor(w[0])) % |i|]\n"
                                          "    claim shift(i)\n",
    "below a cost of less than nothing": "mixer c(x[t,d], w[t,e]) -> o[t]:\n    o[t] = sum[d] x * (sum[e] x * w)\n"
                                         "    claim cost(o) <= -|t| * |d| * |e|\n",
}  # fmt: skip


@pytest.mark.parametrize("where", FALSE)
def test_what_is_false_somewhere_is_not_proved(where: str) -> None:
    (_, verdict), *_ = seqdsl.load(FALSE[where]).check().claims
    assert not isinstance(verdict, Proved), verdict


CAVEATS = {
    "no guard of a mean or a normaliser leaves nothing": [
        "mixer c(x[t]) -> y[t], z[t]:\n    index s over t\n    y[t] = sum[s] softmax[s | s < t](x[s])\n    z[t] = 1 + 0 * x\n"
        "    claim y == z\n",
        "mixer c(x[t]) -> y[t], z[t]:\n    index s over t\n    y[t] = mean[s | s < t] x[t]\n    z[t] = x\n    claim y == z\n",
    ],
    "no denominator is 0": [_pair("y[t] = t / t * x", "x"), _pair("y[t] = (t - 3) / (t - 3) * x", "x")],
    "logarithms and roots have values": [_pair("y[t] = sqrt(t - 3)^2 * x", "(t - 3) * x")],
}


@pytest.mark.parametrize("caveat", CAVEATS)
def test_a_proof_says_where_it_does_not_hold(caveat: str) -> None:
    for source in CAVEATS[caveat]:
        (_, verdict), *_ = seqdsl.load(source).check().claims
        assert isinstance(verdict, Proved) and caveat in verdict.how, verdict


def test_what_holds_everywhere_has_no_caveat() -> None:
    for y, z in (("y[t] = x * (t + 1) / (t + 1)", "x"), ("y[t] = mean[s | s <= t] x[t]", "x")):
        source = _pair(y, z).replace("]:\n", "]:\n    index s over t\n", 1)
        (_, verdict), *_ = seqdsl.load(source).check().claims
        assert isinstance(verdict, Proved) and "where" not in verdict.how, verdict


def test_a_condition_may_read_what_no_output_does() -> None:
    source = "mixer c(x[t], a[t]) -> S[t]:\n    p[t] = 2 * a\n    S[t] = a * S[t-1] + x\n    claim stable(S) when p <= 1\n"
    assert seqdsl.load(source).check().claims


@pytest.mark.parametrize("step, when", [
    ("exp(x) * S[t-1] + b", "x <= 1000000000"),
    ("(x / 3)^1000000001 * S[t-1] + b", "x <= 2 and -2 <= x"),
])  # fmt: skip
def test_large_numbers_are_not_written_out(step: str, when: str) -> None:
    assert seqdsl.load(_state(step, when)).check().claims


@pytest.mark.parametrize("source", [
    TRANSPOSED,
    "mixer c(x[t]) -> p[t,s]:\n    index s over t\n    p[t,s] = sqrt(-1 - x[t]^2 - x[s]^2)\n    claim rows_sum_to_one(p, s)\n",
    _state("(a + b) * S[t-1] + x", "abs(a) <= 1 and abs(b) <= 1", "x[t], a[t], b[t]"),
])  # fmt: skip
def test_long_draws_numbers_at_the_edge_of_a_condition_and_none_refute(source: str) -> None:
    (_, verdict), *_ = seqdsl.load(source).check().claims
    assert isinstance(verdict, Refuted), verdict


def test_negative_powers_of_whole_numbers_are_real() -> None:
    text = _pair("y[t] = x * n^-2", "x / n^2", "x[t], n[t]: int", when="n >= 1")
    (_, verdict), *_ = seqdsl.load(text).check().claims
    assert isinstance(verdict, Proved)
    wrong = _pair("y[t] = x * n^-2", "where(n > 1, 0, x)", "x[t], n[t]: int", when="n >= 1")  # as if they were cut to whole ones
    (_, verdict), *_ = seqdsl.load(wrong).check().claims
    assert isinstance(verdict, Refuted)
