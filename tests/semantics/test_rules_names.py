"""Rules 1 to 9: names, indices, order, sizes. For each rule texts with their values, and texts that are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqdsl
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.sizes import SizeError
from seqdsl.semantics import load_system

from .support import A, B, X, body, check, refuse, value

# Rule 1: one name, one thing -----------------------------------------------------------------------------------------


def test_1_a_name_is_one_thing() -> None:
    check(body("z[t,c] = 2 * x", "y[t,c] = z + t"), 2 * X + np.arange(4)[:, None], x=X)


@pytest.mark.parametrize(
    "text, code, under",
    [
        (body("t[c] = 1", "y[t,c] = x"), "name-clash", "t"),
        (body("x[t,c] = 1", "y[t,c] = x"), "duplicate-definition", "x[t,c]"),
        (body("N[t] = 1", "y[t,c] = x", options="; N = 2"), "name-clash", "N"),
        (body("a[x: 2] = 1", "y[t,c] = x"), "name-clash", "x"),
        (body("index x over t", "y[t,c] = x"), "name-clash", "x"),
        (body("exp[t,c] = x", "y[t,c] = x"), "name-clash", "exp"),
        (body("inf[t,c] = x", "y[t,c] = x"), "name-clash", "inf"),
        (body("y[t,N] = x", options="; N = 2"), "name-clash", "N"),
        ("mixer f(t[t]) -> y[t]:\n    y[t] = t\n", "name-clash", "t"),
        ("mixer f(x[t]; t = 2) -> y[t]:\n    y[t] = x\n", "name-clash", "t = 2"),
        ("mixer f(x[t]; x = 2) -> y[t]:\n    y[t] = x\n", "name-clash", "x = 2"),
    ],
)
def test_1_refused(text: str, code: str, under: str) -> None:
    refuse(text, code, under)


# Rule 2: elision -----------------------------------------------------------------------------------------------------


def test_2_omitted_subscripts_are_the_declared_indices() -> None:
    before = np.vstack([np.zeros((1, 3)), X[:-1]])
    for read in ("x[t-1]", "x[t-1,c]"):
        check(body(f"y[t,c] = {read}"), before, x=X)
    check(body("y[t,c] = x[t,0]"), np.repeat(X[:, :1], 3, axis=1), x=X)
    check(body("y[t,c] = x[|t|-1]"), np.repeat(X[-1:], 4, axis=0), x=X)
    check(body("y[t,c] = x[N-1,c]", options="; N = 2"), np.repeat(X[1:2], 4, axis=0), x=X)


def test_2_refused() -> None:
    refuse(body("y[t,c] = x[t,c,0]"), "too-many-subscripts", "x[t,c,0]")
    refuse(body("y[t,c] = c[t] * x"), "not-a-tensor", "c")
    refuse(body("y[t,c] = x * S[t-1]"), "unknown-tensor", "S")


# Rule 3: an index is a value -----------------------------------------------------------------------------------------


def test_3_an_index_is_its_position() -> None:
    n = np.arange(4.0)[:, None]
    check(body("y[t,c] = log(t + 1)"), np.log(n + 1) + 0 * X, x=X)
    check(body("y[t,c] = 2^(-8 * (c + 1) / |c|) * t"), 2.0 ** (-8 * (np.arange(3) + 1) / 3) * n, x=X)
    check(body("y[t,c] = x * (c + 1)^(-1) + (t + 2)^(-c) + (c + 1)^c"),
          X / (np.arange(3) + 1) + (n + 2) ** -np.arange(3.0) + (np.arange(3) + 1.0) ** np.arange(3), x=X)  # rule 31
    check(body("y[t,c] = where(t % 2 == 0, x, -x)"), X * np.array([1, -1, 1, -1])[:, None], x=X)


def test_3_refused() -> None:
    refuse(body("y[t,c] = x + s"), "unknown-name", "s")
    refuse(body("a[t, n: 2] = x[t,n]", "y[t,c] = x + n"), "stray-index", "n", "`n` is an index")


# Rule 4: free indices ------------------------------------------------------------------------------------------------


def test_4_the_left_side_may_have_more_indices() -> None:
    check("mixer f(v[t], k[d]) -> o[t,d]:\n    o[t,d] = v\n", np.repeat(A[:, None], 3, axis=1), v=A, k=np.ones(3))


def test_4_an_inner_binder_shadows() -> None:
    check("mixer f(a[t]) -> p[t]:\n    p[t] = a / sum[t] a\n", A / A.sum(), a=A)
    text = "mixer f(a[t]) -> p[t,s]:\n    index s over t\n    p[t,s] = softmax[s](a * a[s])\n"
    scores = np.exp(A[:, None] * A)
    check(text, scores / scores.sum(1, keepdims=True), a=A)
    check("mixer f(a[t]) -> y:\n    y[] = sum[t] a * (sum[t] a)\n", A.sum() ** 2, a=A)


@pytest.mark.parametrize(
    "right, under, help",
    [
        ("q * S", "q", "sum over it, `sum[d] q * S`, or add `d` on the left"),
        ("v + 2 * q", "q", "sum over it, `sum[d] 2 * q`, or add `d` on the left"),
        ("exp(q - v)", "q", "sum over it, `sum[d] exp(q - v)`, or add `d` on the left"),
        ("v * q[t,d] / sqrt(|d|)", "d", "sum over it, `sum[d] v * q[t,d] / sqrt(|d|)`, or add `d` on the left"),
        ("v * (v + sum[t] q)", "q", "sum over it, `sum[d] v * (v + sum[t] q)`, or add `d` on the left"),
        ("v + d", "d", "sum over it, `sum[d] d`, or add `d` on the left"),
        (
            "v * v * v * v * v * v * v * v * v * v * v * v * v * v * q",
            "q",
            "sum over it, `sum[d] q`, or add `d` on the left",
        ),
    ],
)
def test_4_strays(right: str, under: str, help: str) -> None:
    text = f"mixer f(q[t,d], v[t]) -> o[t]:\n    S[t,d] = S[t-1] + q\n    o[t] = {right}\n"
    refuse(text, "stray-index", under, "the right side varies along `d`, the left side does not", help=help)


def test_4_several_strays_are_listed() -> None:
    refuse(
        "mixer f(q[t,h,d]) -> o[t]:\n    o[t] = q\n",
        "stray-index",
        "q",
        "varies along `h` and `d`",
        help="sum over them, `sum[h,d] q`, or add `h` and `d` on the left",
    )


def test_4_a_reduction_has_its_index() -> None:
    check("mixer f(v[t], k[d]) -> o[t]:\n    o[t] = |d| * v\n", 3 * A, v=A, k=np.ones(3))
    check("mixer f(v[t], k[d]) -> o[t]:\n    o[t] = sum[d | d < 2] v\n", 2 * A, v=A, k=np.ones(3))
    refuse("mixer f(v[t], k[d]) -> o[t]:\n    o[t] = sum[d] v\n", "unused-reduction-index", "d", help="`|d| * ..`")
    refuse("mixer f(v[t], k[d]) -> o[t]:\n    o[t] = max[d](v)\n", "unused-reduction-index", "d")
    refuse("mixer f(v[t], k[d]) -> o[t,d]:\n    o[t,d] = softmax[d](v)\n", "unused-reduction-index")


# Rule 5: a second index of an axis -----------------------------------------------------------------------------------


def test_5_a_second_index() -> None:
    text = "mixer f(v[t]) -> o[t]:\n    index s over t\n    o[t] = sum[s | s <= t] v[s]\n"
    check(text, np.cumsum(A), v=A)
    text = "mixer f(x[t,c]) -> y[t,c]:\n    index s over t, b over c\n    y[t,c] = sum[s,b | s < t and b == c] x[s,b]\n"
    check(text, np.cumsum(X, 0) - X, x=X)


def test_5_without_a_declaration_another_axis() -> None:
    text = "mixer f(q[t], k[s]) -> o[t]:\n    o[t] = sum[s] q * k\n"
    check(text, A * B.sum(), q=A, k=B)


@pytest.mark.parametrize("sum_", ["sum[s] p * v", "sum[s] v * p", "sum[s | s < t] p * exp(v)", "mean[s] p * v"])
def test_5_a_bare_factor_of_the_axis(sum_: str) -> None:
    text = f"mixer f(p[t,s], v[t]) -> o[t]:\n    index s over t\n    o[t] = {sum_}\n"
    refuse(text, "ambiguous-axis", "v", help="write `v[s]` or `v[t]`")


def test_5_said_with_a_subscript() -> None:
    p = np.arange(16.0).reshape(4, 4)
    text = "mixer f(p[t,s], v[t]) -> o[t]:\n    index s over t\n    o[t] = sum[s] p * v[{}]\n"
    check(text.format("s"), p @ A, p=p, v=A)
    check(text.format("t"), p.sum(1) * A, p=p, v=A)


def test_5_refused() -> None:
    refuse("mixer f(x[t]) -> y[t]:\n    index s over r\n    y[t] = x\n", "unknown-index", "r")
    refuse("mixer f(x[t,t]) -> y[t]:\n    y[t] = x\n", "repeated-index", "x[t,t]")
    refuse(body("a[t,t] = 1", "y[t,c] = x"), "repeated-index", "t", help="index t2 over t")
    refuse(body("y[t,c] = sum[t,t] x"), "repeated-index", "t")


# Rule 6: a foreign index ---------------------------------------------------------------------------------------------

FOREIGN = "mixer f(x[t], e[m]) -> y[m]:\n    y[m] = x[m] + e\n"


def test_6_a_foreign_index_needs_equal_sizes() -> None:
    check(FOREIGN, A + 1, x=A, e=np.ones(4))
    with pytest.raises(SizeError) as caught:
        value(FOREIGN, x=A, e=np.ones(3))
    assert caught.value.code == "size-mismatch" and "|m| = 3, |t| = 4" in caught.value.note


def test_6_declarations_relate_the_sizes() -> None:
    text = "mixer f(x[t]) -> y[m]:\n    y[m: |t| // 2] = x[m] + x[2*m + 1]\n"
    check(text, A[:2] + A[1::2], x=A)
    text = "mixer f(x[t]) -> y[m]:\n    y[m: 6] = x[m]\n"
    check(text, np.append(A, [0, 0]), x=A)


@pytest.mark.parametrize("length", [3, 5, 7])
def test_6_a_stated_size_says_how_long_a_table_is(length: int) -> None:
    """As `P[i: N]` of a transformer is read at t: beyond its end it is 0 (rule 10), in modules too."""
    text = "mixer f(x[t,c]) -> y[t,c]:\n    param w[n: 5] = n + 1\n    y[t,c] = w[c] * x\n"
    x = np.linspace(1, 2, 2 * length).reshape(2, length)
    wanted = x * np.array([1, 2, 3, 4, 5, 0, 0])[:length]
    check(text, wanted, x=x)
    np.testing.assert_allclose(seqdsl.load(text).module()(torch.from_numpy(x)[None])[0].detach(), wanted, rtol=1e-6)


# Rule 7: order, scope, layout ----------------------------------------------------------------------------------------


def test_7_equations_are_unordered() -> None:
    check(body("y[t,c] = a + b", "b[t,c] = a * 2", "a[t,c] = x"), 3 * X, x=X)
    check(body("y = a", "a = x"), X, x=X)


def test_7_an_index_is_declared_once_and_known_everywhere() -> None:
    check(body("y[t,c] = x * (sum[j] j)", "w[t] = sum[j: 3] j"), 3 * X, x=X)
    check(body("a[j: 2] = j", "b[j: 2] = 1", "y[t,c] = x + (sum[j] (a + b))"), X + 3, x=X)
    refuse(body("a[n: 2] = n", "b[n: 3] = n", "y[t,c] = x"), "duplicate-index", "n: 3")
    refuse(body("a[t,h] = 1", "y[t,c] = x"), "unknown-index", "h")
    refuse(body("y[t,c] = sum[h] x"), "unknown-index", "h")


def test_7_the_header_says_an_outputs_layout() -> None:
    check("mixer f(x[t,c]) -> y[c,t]:\n    y[t,c] = 2 * x\n", 2 * X.T, x=X)
    check("mixer f(x[t,c]) -> y[c,t]:\n    y[t,c] = y[t-1] + x\n", np.cumsum(X, 0).T, x=X)
    refuse("mixer f(x[t,c]) -> y[t,c]:\n    y[t] = sum[c] x\n", "output-mismatch", "y[t,c]")
    refuse("mixer f(x[t,c]) -> y:\n    y[t] = sum[c] x\n", "output-mismatch", "y")
    refuse("mixer f(x[t,c]) -> y[t,c]:\n    z[t] = sum[c] x\n", "undefined-output", "y[t,c]")


def test_7_each_point_is_defined_once() -> None:
    refuse(body("y[t,c] = x", "y[t,c] = 2 * x"), "duplicate-definition", "y[t,c]")
    refuse(body("y = x", "y[t,c] = 2 * x"), "duplicate-definition", "y[t,c]")
    refuse(body("y = x", "y = x"), "duplicate-definition", "y")


# Rule 8: sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, length",
    [
        ("N", 6),
        ("|t|", 4),
        ("N + |t|", 10),
        ("N - 1", 5),
        ("N * 2", 12),
        ("N / 2", 3),
        ("N // 4", 1),
        ("N % 4", 2),
        ("2^3", 8),
        ("ceil(N / 4)", 2),
        ("min(N, |t|)", 4),
        ("max(N, |t|, 9)", 9),
        ("(|t| + 2) / N", 1),
        ("-N + 8", 2),
        ("N / 2 / 3", 1),
        ("ceil(7)", 7),
    ],
)
def test_8_formulas(size: str, length: int) -> None:
    check(body(f"a[n: {size}] = 1", "y[t,c] = x + sum[n] a", options="; N = 6"), X + length, x=X)


def test_8_options_default_over_sizes_and_options() -> None:
    text = "mixer f(x[t,c]; H = |c|, D = H * 2) -> y[t,d]:\n    y[t, d: D] = x[t, d // 2]\n"
    check(text, np.repeat(X, 2, axis=1), x=X)
    found = interpret(load_system(text), inputs={"x": X}, sizes={"H": 2})["outputs"]["y"]
    assert found.shape == (4, 4)


def test_8_a_header_index_may_state_its_size() -> None:
    text = "mixer f(x[t], pos[i: 3]) -> y[t,i]:\n    y[t,i] = x * pos\n"
    check(text, A[:, None] * np.ones(3), x=A, pos=np.ones(3))
    with pytest.raises(SizeError, match="size-mismatch"):
        value(text, x=A, pos=np.ones(4))


@pytest.mark.parametrize(
    "size, code, under",
    [
        ("x", "not-a-size", "x"),
        ("t", "not-a-size", "t"),
        ("1.5", "not-a-size", "1.5"),
        ("M", "unknown-size", "M"),
        ("|x|", "not-an-index", "|x|"),
        ("|z|", "unknown-index", "|z|"),
        ("4 / 0", "division-by-zero", "0"),
        ("exp(2)", "not-a-size", "exp(2)"),
        ("N < 2", "not-a-size", "N < 2"),
        ("ceil(1, 2)", "not-a-size", "ceil(1, 2)"),
        ("10000000000000000000", "size-too-large", "10000000000000000000"),
        ("N and 2", "not-a-size", "N and 2"),
    ],
)
def test_8_refused(size: str, code: str, under: str) -> None:
    refuse(body(f"a[n: {size}] = 1", "y[t,c] = x", options="; N = 6"), code, under)


@pytest.mark.parametrize(
    "size, code, numbers",
    [
        ("|t| / 3", "inexact-division", "4 / 3 leaves 1"),
        ("|t| - 4", "", ""),
        ("|t| - 5", "bad-size", "is -1"),
        ("|t| // (N - 6)", "division-by-zero", "4 and 0"),
    ],
)
def test_8_sizes_that_do_not_work_out(size: str, code: str, numbers: str) -> None:
    text = body(f"a[n: {size}] = 1", "y[t,c] = x + sum[n] a", options="; N = 6")
    if not code:
        value(text, x=X)
        return
    with pytest.raises(SizeError) as caught:
        value(text, x=X)
    assert caught.value.code == code and numbers in f"{caught.value.message} {caught.value.note}"


@pytest.mark.parametrize(
    "size, code, under",
    [
        ("N - 6", "bad-size", "n: N - 6"),
        ("-1", "bad-size", "n: -1"),
        ("7 / 2", "inexact-division", "n: 7 / 2"),
        ("|n|", "bad-size", "n: |n|"),
        ("|n| // 2 + 1", "bad-size", "n: |n| // 2 + 1"),
        ("10^(N^N)", "size-too-large", "n: 10^(N^N)"),
        ("1000000000000000", "size-too-large", "n: 1000000000000000"),
    ],
)
def test_8_sizes_that_the_text_alone_decides(size: str, code: str, under: str) -> None:
    refuse(body(f"a[n: {size}] = 1", "y[t,c] = x + sum[n] a", options="; N = 6"), code, under)
    refuse(body("y = g(x)") + f"\nmixer g(x[t,c]; N = 6) -> y[t,c]:\n    a[n: {size}] = 1\n    y[t,c] = x + a[0]\n", code, under)


def test_8_sizes_that_the_header_decides() -> None:
    text = "mixer f(x[t, c: 10]; H = {}, D = |c| / H) -> y[t,h,d]:\n    y[t, h: H, d: D] = x[t,h*D+d]\n"
    assert value(text.format(5), x=np.ones((3, 10))).shape == (3, 5, 2)
    refuse(text.format(3), "inexact-division", "|c| / H")


def test_8_an_axis_that_follows_an_input_s_may_be_empty() -> None:
    text = body("a[n: 2 * |t|] = 1", "b[m: 3 * |n|] = a[m // 3]", "y[t,c] = x + sum[m] b")
    assert value(text, x=np.ones((2, 3))).tolist() == [[13.0] * 3] * 2
    assert value(text, x=np.ones((0, 3))).shape == (0, 3)


def test_8_sizes_in_a_circle() -> None:
    text = body("a[p: |q|] = 1", "b[q: |r| + 1] = 1", "d[r: 2 * |p|] = 1", "y[t,c] = x")
    refuse(text, "bad-size", "p: |q|", "depends on itself")
    refuse(body("y[t,c] = x", options="; N = 5 % 0"), "division-by-zero", "0")
    refuse(body("y[t,c] = x", options="; Z = 0, N = 5 % Z"), "division-by-zero", "5 % Z")


# Rule 9: windows that do not divide ----------------------------------------------------------------------------------


def test_9_windows_are_what_is_written() -> None:
    text = "mixer f(x[i]) -> y[a]:\n    y[a: {}] = sum[w: 3{}] x[a*3 + w]\n"
    check(text.format("(|i| + 2) // 3", ""), np.array([A[:3].sum(), A[3]]), x=A)
    check(text.format("|i| // 3", ""), np.array([A[:3].sum()]), x=A)
    text = "mixer f(x[i]) -> y[a]:\n    y[a: (|i| + 2) // 3] = max[w: 3 | a*3 + w < |i|](x[a*3 + w])\n"
    check(text, np.array([A[:3].max(), A[3]]), x=A)
