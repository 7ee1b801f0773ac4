"""Random mixers through the whole compiler, and what such runs have found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from seqdsl.semantics import load_system
from seqdsl.verify.case import Case, case_named
from seqdsl.verify.strategies import KINDS, cases, mixer_texts
from tests.verify.differential import check_text
from tests.verify.stacks import stack_texts

EVERY = 10  # of so many mixers one has its modules built, too


def each(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many mixers, an example of inputs each. A counterexample is shrunk only in a deep run: it is slow."""
    drawn = given(mixer_texts(), st.lists(cases(), min_size=1, max_size=1), st.integers(0, EVERY - 1))
    phases = (Phase.generate, Phase.shrink)
    return lambda test: settings(
        max_examples=count, deadline=None, phases=phases, suppress_health_check=list(HealthCheck)
    )(drawn(test))


@each(300)
def test_every_form_of_random_mixers(text: str, examples: list[Case], draw: int) -> None:
    check_text(text, examples, modules=draw == EVERY - 1)


@pytest.mark.deep
@each(10_000)
def test_every_form_of_many_random_mixers(text: str, examples: list[Case], draw: int) -> None:
    check_text(text, examples, modules=draw == EVERY - 1)


def stacks(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many stacks of random mixers, all with their modules: their loops hold what no layer alone does."""
    drawn = given(stack_texts(), st.lists(cases(), min_size=1, max_size=1))
    return lambda test: settings(
        max_examples=count, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
    )(drawn(test))


@stacks(30)
def test_every_form_of_random_stacks(text: str, examples: list[Case]) -> None:
    check_text(text, examples, modules=True, mixer="deep")


@pytest.mark.deep
@stacks(1_000)
def test_every_form_of_many_random_stacks(text: str, examples: list[Case]) -> None:
    check_text(text, examples, modules=True, mixer="deep")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_well_typed(kind: str) -> None:
    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mixer_texts(kinds=(kind,), parts=1))
    def check(text: str) -> None:
        assert load_system(text).name == "drawn"

    check()


FOUND = {
    "a sum of two states as convolutions, of which one keeps more than its last position": (
        "mixer drawn(x3[t,h,d], x4[t,h,e], x5[t,h,d], x6[t,h,e]) -> o7[t,h,e]:\n    S1[t,h,d,e] = 1 * S1[t-1] + x3 * x4\n"
        "    S2[t,h,d,e] = 1 * S2[t-1] + 0.3 * S2[t-2] + x5 * x6\n    o7[t,h,e] = sum[d] (S1 + S2)\n",
        "0:0",
    ),
    "a recurrence over (max, +) that runs backwards, and is all that is wanted": (
        "mixer drawn(a[t,h], x[t,h,c]) -> m[t,h,c]:\n    m[t,h,c] = max(m[t+1] + a, x)\n",
        "5:1",
    ),
    "micro-steps of what cannot be stepped: their start was taken from a state that is not kept": (
        "mixer drawn(k[t,j,d], v[t,j,e], x[t,d]) -> o[t,e], p[t,e]:\n    S[t,-1,d,e] = S[t-1, |j|-1]\n"
        "    r[t,j,e] = sum[d] k * S[t,j-1]\n    S[t,j,d,e] = 0.8 * S[t,j-1] + 0.3 * k * (v - r)\n"
        "    o[t,e] = sum[d] x[t // 4 * 4] * S[t, |j|-1]\n    p[t,e] = p[t+1] / 2 + tanh(o)\n",
        "5:1",
    ),
    "two inner reads of one start, and nothing left of a scan's axes": (
        "mixer drawn(x[t,d], z[d,e], g[t], k[t,d], v[t,e], w[t,d], u[t,d], q[t,d,e]) -> o[t,e]:\n    S[-1,d,e] = z\n"
        "    r[t,e] = sum[d] k * (g * S[t-1])\n    p[t,e] = sum[d] w * S[t-1]\n"
        "    S[t,d,e] = g * S[t-1] - 0.2 * k * r + (1 + v[t-1] - v) - 0.2 * u * p + x\n    o[t,e] = sum[d] q * S[t-1]\n",
        "5:1",
    ),
    "a state that follows one with lags, scanned after all: it read a companion, of which the state keeps nothing": (
        "mixer drawn(x[t,h], u[t,h,d]) -> o[t,d]:\n    S[t,h,d] = 0.5 * S[t-1] + x\n"
        "    R[t,h,d] = 0.5 * R[t-1] + 0.3 * R[t-2] + u\n    Q[t,h,d] = 0.5 * Q[t-1] + 0.3 * R + 0.5\n"
        "    o[t,d] = sum[h] (S[t // 3 * 3 - 1] + Q)\n",
        "5:668",
    ),
    "lags beside a boundary that a later equation reads: the state's window is no single start": (
        "mixer drawn(g[h], x[t,h,d], z[t,e]) -> o[t,h,e]:\n    S[t,h,d,e] = 0.5 * S[t-1] + 0.3 * S[t-2] + x\n"
        "    R[t,h,d,e] = sigmoid(g) * R[t-1] + 0.3 * R[t-2] + 0.3 * S + z\n    o[t,h,e] = sum[d] (S + R[t // 2 * 2])\n",
        "5:0",
    ),
    "lags beside a reversed recurrence, which leaves no state to keep": (
        "mixer drawn(x[t,c], z[t,c]) -> o[t,c], p[t,c]:\n    S[t,c] = S[t+1] + x\n    o[t,c] = S\n"
        "    R[t,c] = 0.5 * R[t-1] + 0.3 * R[t-2] + z\n    p[t,c] = R\n",
        "0:0",
    ),
    "a lag whose base case is an integer": (
        "mixer drawn(x[t,c]) -> o[t,c]:\n    S[-1,c] = 1\n    S[t,c] = 0.5 * S[t-1] + 0.3 * S[t-2] + x\n    o[t,c] = S\n",
        "5:0",
    ),
    "a scalar comes first, and so there is no stream to keep a state of": (
        "mixer drawn(a, g[t], x[t,c]) -> y[t,c]:\n    y[t,c] = sigmoid(a * g) * y[t-1] + x\n",
        "2:7",
    ),
    "packed sequences along both axes of a matrix": (
        "mixer drawn(A[m,n], x[t,n]) -> o[t,n]:\n    index m over n\n"
        "    S[t,n] = 0.4 * sum[m] A * S[t-1,m] + x\n    o[t,n] = x * S\n",
        "5:1398",
    ),
    "inner reads over an axis of length 0": (
        "mixer drawn(g[d], k[t,d], u[t,d]) -> o[t,d]:\n    r[t] = sum[d] k * S[t-1]\n"
        "    S[t,d] = exp(g) * S[t-1] - 0.2 * u * r\n    o[t,d] = S[t-1]\n",
        "0:3",
    ),
    "no rows at all of a state whose write has a factor without them": (
        "mixer drawn(z[d,e], k[t,j,d], v[t,j,e], g[t,d,e], x[t,d,e]) -> o[t,e]:\n    S[|t|,d,e] = z\n"
        "    S[t,d,e] = exp(g) * S[t+1] + (sum[j] k * v)\n    R[t,d,e] = exp(g) * R[t+1] + x\n    o[t,e] = sum[d] (S + R)\n",
        "0:0",
    ),
    "an empty axis beside the stream in one softmax": (
        "mixer drawn(c0[c], x[t,c]) -> y[t]:\n    index s over t\n    y[t] = logsumexp[s, c | s <= t](x[s]) / (t + 1)\n",
        "0:0",
    ),
    "an input with two indices of the stream that nothing reads, one position at a time": (
        "mixer drawn(A[n,m], x[n,e]) -> y[n,e]:\n    index m over n\n    y[n,e] = y[n-1] / 2 + x\n",
        "3:1",
    ),
    "a sum over all depths so far, of what is stepped at each of them": (
        "mixer drawn(x[t,c]; L = 3) -> y[t,c]:\n    index k over l\n    h[-1,t,c] = x\n"
        "    S[l: L,t,c] = 0.5 * S[l,t-1] + h[l-1]\n    h[l,t,c] = sum[k | k <= l] S[k] / 4\n    y[t,c] = h[L-1]\n",
        "3:1",
    ),
    "a read of two recurrences that run backwards, both mirrored": (
        "mixer drawn(x[t,d], y[t,e], z[t,d], w[t,e], q[t,d,e]) -> o[t,e]:\n    A[t,d,e] = 0.9 * A[t+1] + x * y\n"
        "    B[t,d,e] = 0.7 * B[t+1] + z * w\n    o[t,e] = sum[d] q * (A + B)\n",
        "3:5",
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_right(name: str) -> None:
    text, case = FOUND[name]
    example = case_named(case)
    assert example is not None
    check_text(text, [example], modules=True)


def test_a_case_has_a_name_that_reads_back() -> None:
    for case in (Case(5, 123, True), Case(0, 0, False)):
        assert case_named(case.name()) == case
    assert [case_named(t) for t in ("", "5", "5:x", "5:1:mild", "5:1:harsh:1", "-1:2")] == [None] * 6
