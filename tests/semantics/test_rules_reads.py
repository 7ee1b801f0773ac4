"""Rules 10 to 22: reads, guards, reductions, recurrences, their state. Texts with their values, and refused texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.state import NotSteppable, state_record
from seqdsl.semantics import load_system

from .support import A, Array, B, X, body, check, refuse, value

S = "    index s over t\n"


def one(line: str, *more: str) -> str:
    """A mixer from x[t] to y[t], with a second index s of t."""
    return "mixer f(x[t]) -> y[t]:\n" + S + "".join(f"    {text}\n" for text in (line, *more))


def to(line: str) -> str:
    """A mixer from x[t] and z[j] to a scalar."""
    return f"mixer f(x[t], z[j]) -> y:\n    y[] = {line}\n"


# Rule 10: outside ----------------------------------------------------------------------------------------------------


def test_10_outside_a_tensor_is_zero() -> None:
    padded = np.concatenate([np.zeros(9), A, np.zeros(9)])
    for shift in (-5, -1, 0, 1, 4):
        check(one(f"y[t] = x[t + {shift}]"), padded[9 + shift : 13 + shift], x=A)
    check(one("y[t] = x[-1]"), np.zeros(4), x=A)
    check(one("y[t] = x[|t|]"), np.zeros(4), x=A)
    check(one("y[t] = exp(x[t-1])"), np.exp(padded[8:12]), x=A)


def test_10_outside_a_boolean_is_false() -> None:
    check(one("b[t] = x > 0", "y[t] = where(b[t-1], x, 0)"), np.where([False, True, False, True], A, 0), x=A)


def test_10_a_guard_or_a_named_tensor() -> None:
    check(one("y[t] = max[j: 3 | j <= t](x[t-j])"), [0.5, 0.5, 2, 2], x=A)
    check(one("w[t, j: 3] = x[t-j]", "y[t] = min[j](w)"), [0, -1.25, -1.25, -1.25], x=A)
    check(one("y[t] = max[j: 3 | t - j >= 0](x[t-j])"), [0.5, 0.5, 2, 2], x=A)
    check(one("y[t] = sum[j: 3] x[t-j]"), [0.5, -0.75, 1.25, 1.5], x=A)


@pytest.mark.parametrize("op", ["max", "min", "prod", "logsumexp", "argmax"])
def test_10_refused(op: str) -> None:
    refuse(
        one(f"y[t] = {op}[j: 3](x[t-j]) + x"), "unguarded-read", "x[t-j]", f"`{op}` reads `x`", help="| t - j >= 0](..)"
    )


def test_10_refused_along() -> None:
    refuse("mixer f(x[t]) -> y[t,j]:\n    y[t,j] = softmax[j: 3](x[t-j])\n", "unguarded-read", "x[t-j]")
    refuse(one("y[t] = sum[j: 3] rank[j](x[t-j])"), "unguarded-read", "x[t-j]")


# Rule 11: guards -----------------------------------------------------------------------------------------------------


def test_11_guards() -> None:
    for guard, keep in {
        "s <= t": np.tri(4),
        "t - 2 < s <= t": np.tri(4) - np.tri(4, k=-2),
        "s < t or s == t": np.tri(4),
        "not s > t": np.tri(4),
        "x[s] > 0": np.ones((4, 4)) * (A > 0),
        "s % 2 == 0 and s <= t": np.tri(4) * [1, 0, 1, 0],
        "x[s] > x[t]": np.array(A[None, :] > A[:, None], float),
        "true": np.ones((4, 4)),
        "s != t": 1 - np.eye(4),
    }.items():
        check(one(f"y[t] = sum[s | {guard}] x[s]"), keep @ A, x=A)


def test_11_outside_the_guard_nothing_is_evaluated() -> None:
    check(one("y[t] = sum[s | x[s] > 0] sqrt(x[s]) + 0 * x"), np.full(4, np.sqrt(A[A > 0]).sum()), x=A)
    check(one("y[t] = max[s | x[s] > 0](log(x[s])) + 0 * x"), np.full(4, np.log(2.0)), x=A)


def test_11_a_normaliser_is_zero_outside() -> None:
    text = "mixer f(x[t]) -> p[t]:\n    p[t] = softmax[t | x > 0](x)\n"
    e = np.where(A > 0, np.exp(A), 0)
    check(text, e / e.sum(), x=A)
    text = "mixer f(x[t]) -> p[t]:\n    p[t] = l2_norm[t | x > 0](x; eps = 0)\n"
    check(text, np.where(A > 0, A, 0) / np.sqrt((A[A > 0] ** 2).sum()), x=A)


def test_11_refused() -> None:
    refuse(one("y[t] = sum[s | x[s]] x[s]"), "not-a-condition", "x[s]")
    refuse(one("y[t] = sum[s | s + 1] x[s]"), "not-a-condition", "s + 1")
    refuse(one("y[t] = softmax[t | x](x)"), "not-a-condition", "x")
    refuse(one("y[t] = x[t-1 | t > 0]"), "missing-arguments", "[t-1 | t > 0]")
    refuse(one("y[t] = sum[s | k < s] x[s]"), "unknown-name", "k")


# Rule 12: empty ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op, empty",
    [
        ("sum[{}] x", 0),
        ("prod[{}](x)", 1),
        ("where(any[{}](x > -9), 1, 0)", 0),
        ("where(all[{}](x > 9), 1, 0)", 1),
        ("mean[{}] x", 0),
        ("logsumexp[{}](x)", -np.inf),
        ("max[{}](x)", -np.inf),
        ("min[{}](x)", np.inf),
        ("sum[t] softmax[{}](x)", 0),
    ],
)
def test_12_empty(op: str, empty: float) -> None:
    check(to(op.format("t | x > 99")), empty, x=A, z=B)
    check(to(op.format("t")), empty, x=A[:0], z=B)


def test_12_argmax() -> None:
    check(one("y[t] = argmax[s | s <= t](x[s]) + 0 * x"), [0, 0, 2, 2], x=A)
    check(one("y[t] = argmax[s](x[s]) + 0 * x"), [2, 2, 2, 2], x=A)
    check(one("y[t] = argmax[s | s >= t](-x[s]) + 0 * x"), [1, 1, 3, 3], x=A)
    refuse(one("y[t] = argmax[s | x[s] > 0](x[s]) + x"), "empty-argmax", "argmax[s | x[s] > 0](x[s])", help="`s <= t`")
    refuse(one("y[t] = argmax[s | s < t](x[s]) + x"), "empty-argmax")


# Rule 13: two shapes -------------------------------------------------------------------------------------------------


def test_13_the_extent_of_a_prefix_sum() -> None:
    check(one("y[t] = sum[s] x[s] * x[t] + 1"), A.sum() * A + 1, x=A)
    check(one("y[t] = 2 * sum[s] x[s] / 4"), np.full(4, A.sum() / 2), x=A)
    check(one("y[t] = -sum[s] x[s] - x"), -A.sum() - A, x=A)
    check(one("y[t] = 1 / sum[s] x[s]"), np.full(4, 1 / A.sum()), x=A)
    check(one("y[t] = mean[s] x[s]^2"), np.full(4, (A**2).mean()), x=A)
    check(one("y[t] = sum[s] sum[j: 2] x[s] * j"), np.full(4, A.sum()), x=A)
    check(one("y[t] = max(x, sum[s] x[s])"), np.maximum(A, A.sum()), x=A)
    check(one("y[t] = where(sum[s] x[s] > 1, x, 0)"), A, x=A)


@pytest.mark.parametrize(
    "op, function",
    [
        ("max", np.max),
        ("min", np.min),
        ("prod", np.prod),
        ("logsumexp", lambda a: np.log(np.exp(a).sum())),
        ("argmax", np.argmax),
    ],
)
def test_13_calls_along_an_axis(op: str, function: Any) -> None:
    check(to(f"{op}[t](x)"), function(A), x=A, z=B)


def test_13_calls_that_keep_the_axis() -> None:
    e = np.exp(A) / np.exp(A).sum()
    check(one("y[t] = softmax[t](x)"), e, x=A)
    check(one("y[t] = cumsum[t](x)"), np.cumsum(A), x=A)
    check(one("y[t] = rms_norm[t](x)"), A / np.sqrt((A**2).mean() + 1e-6), x=A)
    check(one("y[t] = layer_norm[t](x; eps = 0.5)"), (A - A.mean()) / np.sqrt(A.var() + 0.5), x=A)
    check(one("y[t] = l2_norm[t](x)"), A / np.sqrt((A**2).sum() + 1e-12), x=A)


@pytest.mark.parametrize(
    "right, code, under",
    [
        ("x / sum[s] x[s] * x[t]", "sum-after-division", "*"),
        ("softmax(x)", "missing-indices", "softmax"),
        ("exp[t](x)", "unexpected-brackets", "[t]"),
        ("max[s](x[s], 1)", "wrong-number-of-arguments", "max[s](x[s], 1)"),
        ("max(x)", "wrong-number-of-arguments", "max(x)"),
        ("any(x)", "missing-indices", "any"),
        ("sum[s, x] x[s]", "not-an-index", "x"),
        ("softmax[t -> s](x)", "unexpected-arrow", "[t -> s]"),
        ("sum[t -> s] x", "unexpected-arrow", "[t -> s]"),
        ("swish[s](x[s])", "unknown-function", "swish"),
    ],
)
def test_13_refused(right: str, code: str, under: str) -> None:
    refuse(one(f"y[t] = {right}"), code, under)


# Rule 14: several indices --------------------------------------------------------------------------------------------


def test_14_several_indices_are_joint() -> None:
    text = "mixer f(x[t,c]) -> y[t,c]:\n    y[t,c] = softmax[t,c](x)\n"
    check(text, np.exp(X) / np.exp(X).sum(), x=X)
    text = "mixer f(x[t,c]) -> y:\n    y[] = {}\n"
    check(text.format("argmax[t,c](x)"), np.argmax(X), x=X)
    check(text.format("argmax[c,t](x)"), np.argmax(X.T), x=X)
    check(text.format("sum[t,c | c <= t] x"), (X * np.tri(4, 3)).sum(), x=X)
    check(text.format("mean[t,c] x"), X.mean(), x=X)


def test_14_refused() -> None:
    refuse(body("y[t,c] = softmax[c,c](x)"), "repeated-index", "c")
    refuse(body("y[t,c] = re(fft[t,c](x))"), "too-many-indices", "fft[t,c]")


# Rule 15: rank -------------------------------------------------------------------------------------------------------

TIES = np.array([1.0, 3.0, 1.0, 3.0])


def test_15_rank() -> None:
    check(one("y[t] = rank[t](x) + 0 * x"), [2, 0, 3, 1], x=TIES)
    check(one("r[t] = rank[t](x)", "y[t] = sum[s | r[s] == t] x[s]"), np.sort(A)[::-1], x=A)
    check(
        "mixer f(x[t]) -> p[t]:\n    r[t] = rank[t](x)\n    p[t] = softmax[t | r < 2](x)\n",
        np.where([False, False, True, True], np.exp(A), 0) / (np.exp(2.0) + np.exp(0.75)),
        x=A,
    )


def test_15_refused() -> None:
    refuse(one("y[t] = rank(x)"), "missing-indices", "rank")
    refuse("mixer f(x[t]: complex) -> y[t]:\n    y[t] = rank[t](x)\n", "complex-order", "rank[t](x)")


# Rule 16: transforms -------------------------------------------------------------------------------------------------


def test_16_transforms() -> None:
    text = "mixer f(x[j]) -> y[j]:\n    X[f: |j| // 2 + 1] = rfft[j -> f](x)\n    y[j] = irfft[f -> j](2 * X)\n"
    check(text, 2 * A, x=A)
    check(one("y[t] = re(fft[t](x))"), np.fft.fft(A).real, x=A)
    check(one("y[t] = re(ifft[t](fft[t](x)))"), A, x=A)
    hadamard = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    check(one("y[t] = hadamard[t](x)"), hadamard @ A, x=A)
    check("mixer f(x[t,c]) -> y[t,c]:\n    y[t,c] = re(fft[t](fft[c](x)))\n", np.fft.fft2(X).real, x=X)


def test_16_solve_and_qr() -> None:
    M = np.array([[2.0, 1.0, 0.0], [0.5, 3.0, 1.0], [0.0, -1.0, 2.0]])
    text = "mixer f(m[d,f], b[d]) -> x[f]:\n    index f over d\n    x[f] = solve[d -> f](m, b)\n"
    check(text, np.linalg.solve(M, B), m=M, b=B)
    text = "mixer f(m[d,f]) -> q[d,f]:\n    q[d,f] = qr[d -> f](m)\n"
    q = value(text, m=M)
    np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-12)
    assert np.all(np.diag(q.T @ M) > 0) and np.allclose(np.tril(q.T @ M, -1), 0)


def test_16_refused() -> None:
    refuse("mixer f(x[t], w[s]) -> y[s]:\n    y[s] = re(ifft[t -> s](x * w))\n", "made-and-mapped", "x * w")
    refuse("mixer f(x[t], w[s]) -> y[t]:\n    y[t] = re(fft[t -> s](x)) + w\n", "stray-index")
    refuse(one("y[t] = re(fft[t | t > 0](x))"), "unexpected-guard", "t > 0")
    refuse("mixer f(b[d]) -> x[f]:\n    index f over d\n    x[f] = solve[d -> f](b)\n", "wrong-number-of-arguments")
    line = "mixer f(A[t,d,f], b[t,d]) -> x[t,f]:\n    x[t,f] = solve[d](A + (d == f), 2 * b)\n"
    refuse(line, "matrix-without-arrow", "[d]", help="`solve[d -> f](A + (d == f), 2 * b)`")
    refuse("mixer f(A[t,d,f]) -> q[t,d]:\n    q[t,d] = qr[d -> d](A)\n", "matrix-without-arrow", "[d -> d]", help="qr[d -> f]")


# Rule 17: where ------------------------------------------------------------------------------------------------------


def test_17_the_branch_not_taken_has_no_value() -> None:
    check(one("y[t] = where(x > 0, log(x), 0)"), np.log(np.where(A > 0, A, 1)), x=A)
    check(one("y[t] = where(x > 0, sqrt(x), sqrt(-x))"), np.sqrt(np.abs(A)), x=A)


def test_17_concatenation_and_scatter() -> None:
    text = "mixer f(x[t], z[j]) -> y[n]:\n    y[n: |t| + |j|] = where(n < |t|, x[n], z[n - |t|])\n"
    check(text, np.concatenate([A, B]), x=A, z=B)
    text = "mixer f(x[t], dst[t]: int) -> y[n]:\n    y[n: 3] = sum[t | dst == n] x\n"
    check(text, [A[0] + A[3], A[1], A[2]], x=A, dst=np.array([0, 1, 2, 0]))


def test_17_seen_through_by_the_order() -> None:
    text = one("y[t] = where(t == 0, x, y[t-1] + where(t > 0, 1, y[t+1]))")
    refuse(text, "not-well-founded")
    check(one("y[t] = where(t == 0, x, 2 * y[t - 1])"), 0.5 * 2.0 ** np.arange(4), x=A)


def test_17_refused() -> None:
    refuse(one("y[t] = where(x, 1, 0)"), "not-a-condition", "x")
    refuse(one("y[t] = where(x > 0, 1)"), "wrong-number-of-arguments", "where(x > 0, 1)")


# Rule 18: well-founded -----------------------------------------------------------------------------------------------


def scan(decay: float, x: Array) -> Array:
    out = np.zeros(len(x))
    for t in range(len(x)):
        out[t] = decay * (out[t - 1] if t else 0) + x[t]
    return out


def test_18_forwards_and_backwards() -> None:
    check(one("y[t] = 0.5 * y[t-1] + x"), scan(0.5, A), x=A)
    check(one("y[t] = 0.5 * y[t+1] + x"), scan(0.5, A[::-1])[::-1], x=A)
    check(one("y[t] = 2 * y[t-2] + x"), A + 2 * np.array([0, 0, A[0], A[1]]), x=A)
    check(one("a[t] = b[t-1] + x", "b[t] = a + 1", "y[t] = b"), np.cumsum(A) + np.arange(1, 5), x=A)


def test_18_by_a_guard() -> None:
    L = np.array([[0, 0, 0], [2.0, 0, 0], [-1.0, 0.5, 0]])
    text = "mixer f(a[t,s], x[t]) -> y[t]:\n    index s over t\n    y[t] = x + sum[s | s < t] a * y[s]\n"
    check(text, np.linalg.solve(np.eye(3) - L, B), a=L, x=B)
    text = "mixer f(a[t,s], x[t]) -> y[t]:\n    index s over t\n    y[t] = x + sum[s | s > t] a[s,t] * y[s]\n"
    check(text, np.linalg.solve(np.eye(3) - L.T, B), a=L, x=B)


def test_18_a_lexicographic_order() -> None:
    text = "mixer f(x[i,j]) -> y[i,j]:\n    y[i,j] = y[i-1,j+1] + y[i,j-1] + x\n"
    want = np.zeros((4, 3))
    for i in range(4):
        for j in range(3):
            want[i, j] = X[i, j] + (want[i - 1, j + 1] if i and j < 2 else 0) + (want[i, j - 1] if j else 0)
    check(text, want, x=X)
    text = "mixer f(x[t,j]) -> S[t,j]:\n    S[t,-1] = 2 * S[t-1,|j|-1]\n    S[t,j] = S[t,j-1] + x\n"
    want, last = np.zeros((4, 3)), 0.0
    for t in range(4):
        for j in range(3):
            want[t, j] = (want[t, j - 1] if j else 2 * last) + X[t, j]
        last = want[t, 2]
    check(text, want, x=X)


def test_18_a_boundary() -> None:
    text = "mixer f(x[t]; m = 2) -> y[t]:\n    y[t] = y[t // m * m - 1] + x\n"
    want = np.zeros(4)
    for t in range(4):
        want[t] = (want[t // 2 * 2 - 1] if t >= 2 else 0) + A[t]
    check(text, want, x=A)


@pytest.mark.parametrize(
    "lines, reads",
    [
        (("y[t] = y + x",), ["y[t]"]),
        (("y[t] = y[t-1] + y[t+1] + x",), ["y[t-1]", "y[t+1]"]),
        (("a[t] = y + x", "y[t] = a"), ["y[t]", "a[t]"]),
        (("y[t] = x + sum[s] y[s]",), ["y[s]"]),
        (("y[t] = x + sum[s | s <= t] y[s]",), ["y[s]"]),
        (("y[t] = x + y[t // 2]",), ["y[t // 2]"]),
        (("y[t] = x + y[argmax[s](x[s])]",), []),
        (("y[t] = x + y[2 * t]",), ["y[2*t]"]),
        (("y[t] = x + y[|t| - 1]",), []),
        (("y[t] = x + y[0]",), ["y[0]"]),
    ],
)
def test_18_refused(lines: tuple[str, ...], reads: list[str]) -> None:
    with pytest.raises(SeqError) as caught:
        load_system(one(*lines))
    (fault,) = caught.value.diagnostics
    assert fault.code == "not-well-founded" and fault.notes
    assert all(any(f"`{r}`".replace(" ", "") in note.replace(" ", "") for note in fault.notes) for r in reads)


# Rule 19: start ------------------------------------------------------------------------------------------------------


def test_19_base_cases() -> None:
    check(one("y[-1] = 3", "y[t] = y[t-1] + x"), 3 + np.cumsum(A), x=A)
    check(one("m[-1] = -inf", "m[t] = max(m[t-1], x)", "y[t] = m"), np.maximum.accumulate(A), x=A)
    check(one("y[|t|] = 3", "y[t] = y[t+1] + x"), 3 + np.cumsum(A[::-1])[::-1], x=A)
    check(one("y[0] = 7", "y[t] = y[t-1] + x"), np.cumsum([7, *A[1:]]), x=A)
    text = "mixer f(x[t,c], h[c]) -> y[t,c]:\n    y[-1,c] = h\n    y[t,c] = y[t-1] + x\n"
    check(text, B + np.cumsum(X, 0), x=X, h=B)
    text = "mixer f(x[t,c]) -> y[t,c]:\n    param w[c] = c + 1\n    y[-1,c] = w\n    y[t,c] = y[t-1] + x\n"
    check(text, [1, 2, 3] + np.cumsum(X, 0), x=X)


def test_19_a_base_case_may_stand_first_or_last_and_two_steps_back() -> None:
    check(one("y[t] = y[t-1] + x", "y[-1] = 3"), 3 + np.cumsum(A), x=A)
    check(one("y[-1] = 3", "y[-2] = 5", "y[t] = y[t-2] + x"), [5.5, 1.75, 7.5, 2.5], x=A)


def test_19_the_more_specific_wins_and_corners_are_zero() -> None:
    ones = np.zeros((2, 2))
    grid = "mixer f(x[i,j]) -> y[i,j]:\n    y[-1,j] = 1\n    y[i,-1] = 10\n{}    y[i,j] = y[i-1,j-1] + x\n"
    check(grid.format(""), [[0, 1], [10, 0]], x=ones)
    check(grid.format("    y[-1,-1] = 3\n"), [[3, 1], [10, 3]], x=ones)
    inside = "mixer f(x[i,j]) -> y[i,j]:\n    y[0,j] = 1\n    y[i,0] = 10\n    y[0,0] = {}\n    y[i,j] = x\n"
    check(inside.format(3), [[3, 1], [10, 0]], x=ones)
    single = "mixer f(x[i,j]) -> y[i,j]:\n    y[0,1] = 5\n    y[i,j] = x\n"
    check(single, [[0, 5], [0, 0]], x=ones)


def test_19_around_a_call() -> None:
    text = one("y[0] = 5", "y[t] = g(x) + y[t-1]") + "\nmixer g(x[t]) -> y[t]:\n    y[0] = 9\n    y[t] = 2 * x\n"
    check(text, np.cumsum([5, *(2 * A[1:])]), x=A)


@pytest.mark.parametrize(
    "lines, code, under",
    [
        (("S[-1] = 0", "y[t] = x"), "base-case-alone", "S[-1]"),
        (("y[-1] = 0", "y[-1] = 1", "y[t] = y[t-1] + x"), "duplicate-definition", "y[-1] = 1"),
        (("y[0] = 0", "y[0] = 1", "y[t] = y[t-1] + x"), "duplicate-definition", "y[0] = 1"),
        (("y[-1,0] = 0", "y[t] = y[t-1] + x"), "base-case-shape", "y[-1,0]"),
        (("y[-1] = x", "y[t] = y[t-1] + x"), "stray-index", "x"),
    ],
)
def test_19_refused(lines: tuple[str, ...], code: str, under: str) -> None:
    refuse(one(*lines), code, under)


def test_19_equally_specific_base_cases_clash() -> None:
    text = "mixer f(x[i,j]) -> y[i,j]:\n    y[0,j] = 1\n    y[i,0] = 10\n    y[i,j] = x\n"
    refuse(text, "duplicate-definition", "y[i,0] = 10")


# Rules 20 to 22: state -----------------------------------------------------------------------------------------------


def state(text: str, **inputs: Any) -> dict[str, Any]:
    return dict(interpret(load_system(text), inputs=inputs)["state"])


def test_20_what_is_kept() -> None:
    assert state(one("y[t] = 0.5 * y[t-1] + x"), x=A) == {"y": pytest.approx(scan(0.5, A)[-1])}
    assert state(one("y[t] = x[t-1] + x[t-3]"), x=A)["x"].tolist() == A[1:].tolist()
    assert state(one("y[t] = sum[s | s <= t] x[s] * x[t]"), x=A)["x[s]"].tolist() == A.tolist()
    assert state(one("y[t] = t * x"), x=A) == {"position": 4}
    assert state(one("y[t] = sum[j: 3] x[t-j]"), x=A)["x"].tolist() == A[2:].tolist()
    assert state(one("y[t] = 2 * x"), x=A) == {}
    text = one("z = g(x)", "y[t] = z + x") + "\nmixer g(x[t]) -> y[t]:\n    S[t] = S[t-1] + x\n    y[t] = 2 * S\n"
    assert state(text, x=A) == {"z": {"S": A.sum()}}


def test_20_a_state_replaces_the_base_case() -> None:
    system = load_system(one("y[-1] = 3", "y[t] = y[t-1] + x"))
    assert (
        interpret(system, inputs={"x": A}, state={"y": np.array(10.0)})["outputs"]["y"].tolist()
        == (10 + np.cumsum(A)).tolist()
    )
    reverse = load_system(one("y[|t|] = 3", "y[t] = y[t+1] + x"))
    with pytest.raises(NotSteppable):
        state_record(reverse)


@pytest.mark.parametrize(
    "line, steppable",
    [
        ("y[t] = y[t-1] + x", True),
        ("y[t] = x[t+1]", False),
        ("y[t] = x[|t|-1]", False),
        ("y[t] = sum[s] x[s] * x[t]", False),
        ("y[t] = sum[s | s <= t] x[s] * x[t]", True),
        ("y[t] = sum[s | t - 2 < s <= t] x[s]", True),
        ("y[t] = x[t-9]", True),
        ("y[t] = sum[s | s < t + 1] x[s]", True),
        ("y[t] = sum[s | s <= t + 1] x[s]", False),
        ("y[t] = sum[j: 3] x[t-j]", True),
        ("y[t] = sum[j: 3] x[t+j]", False),
        ("y[t] = softmax[t](x)", False),
    ],
)
def test_22_steppable(line: str, steppable: bool) -> None:
    system = load_system(one(line))
    try:
        state_record(system)
    except NotSteppable:
        assert not steppable
    else:
        assert steppable


@pytest.mark.parametrize("table", ["const w[t] = 2", "param w[t] = normal(0, 1)", "param w[t,s] = normal(0, 1)"])
def test_22_a_table_along_the_stream_is_of_one_length(table: str) -> None:
    read = "sum[s | s <= t] w * x[s]" if "s]" in table else "w * x"
    with pytest.raises(NotSteppable) as error:
        state_record(load_system(one(table, f"y[t] = {read}")))
    assert error.value.read is not None and error.value.read.attr == "w"


def test_19_a_base_case_that_needs_what_follows() -> None:
    lines = ("y[-1,c] = y[0,c]", "y[t,c] = y[t-1] + x")
    refuse(body(*lines), "not-well-founded", lines[0], "the base case of `y` at `t = -1`")


def test_18_a_step_in_the_place_of_another_axis() -> None:
    lines = ("z[-1,t,c] = x", "h[l: 2, t, c] = h[t-1] / 2 + z[l-1]", "z[l,t,c] = tanh(h)", "y[t,c] = z[1]")
    refuse(body(*lines), "not-well-founded", "h[t-1]", help="`t-1` stands in the place of `l`: write `h[l,t-1]`")
