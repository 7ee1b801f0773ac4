"""Rules 23 to 38: calls, stacks, parameters, values and types, monoids, claims, text."""

from __future__ import annotations

from math import erf
from typing import Any

import numpy as np
import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.sizes import SizeError
from seqdsl.semantics import load_system

from .support import A, Array, B, X, body, check, refuse, value

G = "\nmixer g(a[t,c]) -> b[t,c]:\n    b[t,c] = b[t-1] + a\n"
ATTEND = (
    "\nmixer attend(q[t,d], k[s,d], v[s]) -> o[t]:\n    index s over t\n    p[t,s] = softmax[s | s <= t](sum[d] q * k)\n"
    "    o[t] = sum[s] p * v\n"
)
MANY = "\nmixer g(a[t]) -> b[t], m:\n    b[t] = b[t-1] + a\n    m[] = max[t](a)\n"


def one(*lines: str, more: str = "", options: str = "") -> str:
    """A mixer from x[t] to y[t], and what it calls."""
    return f"mixer f(x[t]{options}) -> y[t]:\n" + "".join(f"    {line}\n" for line in lines) + more


def attended(q: Array, k: Array, v: Array) -> Array:
    scores = np.where(np.tri(len(q), len(k)) > 0, np.exp(q @ k.T), 0)
    return np.asarray(scores / scores.sum(1, keepdims=True) @ v)


# Rule 23: arguments by position, axes by name ------------------------------------------------------------------------


def test_23_axes_by_name() -> None:
    for line in ("y = g(x)", "y[t,c] = g(x)", "y[t,c] = 0 + g(x) * 1"):
        check(body(line) + G, np.cumsum(X, 0), x=X)


def test_23_other_axes_by_a_setting() -> None:
    text = "mixer f(x[i,c]) -> y[i,c]:\n    y[i,c] = g(x; t = i)\n" + G
    check(text, np.cumsum(X, 0), x=X)
    check(text.replace("t = i", "t = i, c = c"), np.cumsum(X, 0), x=X)
    text = "mixer f(x[i,c]) -> y[i,c]:\n    y[i,c] = g(x; t = c, c = i)\n" + G
    check(text, np.cumsum(X, 1), x=X)


def test_23_by_axis() -> None:
    text = "mixer f(q[t,d], k[t,d], v[t]) -> o[t]:\n    o = attend(q, k, v)\n" + ATTEND
    v = np.arange(4.0)
    check(text, attended(X, -X, v), q=X, k=-X, v=v)


def test_23_options_of_a_call() -> None:
    more = "\nfn scaled(x; N = 2, M = N + 1) = N * M * x\n"
    check(one("y[t] = scaled(x)", more=more), 6 * A, x=A)
    check(one("y[t] = scaled(x; N = 5)", more=more), 30 * A, x=A)
    check(one("y[t] = scaled(x; M = |t|)", more=more), 8 * A, x=A)
    check(one("y[t] = scaled(x; M = K * 2)", more=more, options="; K = 3"), 12 * A, x=A)


@pytest.mark.parametrize(
    "line, code, under",
    [
        ("y = g(x, x)", "wrong-number-of-arguments", "g(x, x)"),
        ("y = g(x; N = 2)", "unknown-option", "N = 2"),
        ("y = g(x; t = x)", "not-an-index", "x"),
        ("y = g(x; t = 2)", "not-an-index", "2"),
        ("y = g[t](x)", "unexpected-brackets", "[t]"),
        ("y[t,c] = g(x[t,0])", "unbound-axis", "g(x[t,0])"),
        ("y = h(x)", "unknown-function", "h"),
        ("y[t,c] = g + x", "missing-arguments", "g"),
    ],
)
def test_23_refused(line: str, code: str, under: str) -> None:
    refuse(body(line) + G, code, under)


def test_23_axes_that_are_not_comparable() -> None:
    text = "mixer f(q[t,d], k[j,d], v[j]) -> o[t]:\n    o = attend(q, k, v; s = j)\n" + ATTEND
    refuse(text, "axis-mismatch", "attend(q, k, v; s = j)", "`s` and `t` run over one axis in `attend`")


def test_23_a_missing_option() -> None:
    refuse(one("y = g(x)", more="\nmixer g(a[t]; N) -> b[t]:\n    b[t] = N * a\n"), "missing-option", "g(x)", "`N`")


# Rule 24: mapped axes ------------------------------------------------------------------------------------------------


def test_24_unmatched_axes_are_mapped_over() -> None:
    text = "mixer f(x[t,c]) -> y[t,c]:\n    y[t,c] = g(x)\n\nmixer g(a[t]) -> b[t]:\n    b[t] = b[t-1] + a\n"
    check(text, np.cumsum(X, 0), x=X)
    check(text.replace("g(x)", "g(2 * x) / (c + 1)"), np.cumsum(2 * X, 0) / [1, 2, 3], x=X)


def test_24_an_argument_may_lack_an_axis() -> None:
    q = np.stack([X, 2 * X], 1)  # [t,h,d]
    text = "mixer f(q[t,h,d], k[t,d], v[t]) -> o[t,h]:\n    o[t,h] = attend(q, k, v)\n" + ATTEND
    v = np.arange(4.0)
    check(text, np.stack([attended(q[:, h], X, v) for h in (0, 1)], 1), q=q, k=X, v=v)


def test_24_refused() -> None:
    more = "\nmixer g(a[t], b) -> o[t]:\n    o[t] = a + b\n"
    refuse("mixer f(x[t], z[t]) -> y[t]:\n    y[t] = g(x, z)\n" + more, "bound-and-mapped", "z", help="`b[t]`")


# Rule 25: outputs ----------------------------------------------------------------------------------------------------


def test_25_outputs() -> None:
    system = load_system("mixer f(x[t]) -> lo[t], hi:\n    lo, hi = g(x)\n" + MANY)
    outputs = interpret(system, inputs={"x": A})["outputs"]
    assert outputs["lo"].tolist() == np.cumsum(A).tolist() and outputs["hi"] == 2
    check(one("y = g(x)", more=MANY), np.cumsum(A), x=A)
    check(one("b, m = g(x)", "y[t] = b * m", more=MANY), 2 * np.cumsum(A), x=A)
    system = load_system("mixer f(x[t]) -> y[t], S[t]:\n    S[t] = S[t-1] + x\n    y[t] = 2 * S\n")
    assert list(interpret(system, inputs={"x": A})["outputs"]) == ["y", "S"]


def test_25_a_left_side_without_brackets() -> None:
    check(one("z = x", "y = z"), A, x=A)
    check(one("n = 3", "y[t] = n * x"), 3 * A, x=A)
    check(one("n = sum[t] x", "y[t] = n * x"), A.sum() * A, x=A)


def test_25_mapped_axes_come_first() -> None:
    text = "mixer f(x[t,c]) -> y[c,t]:\n    b = g(x)\n    y[c,t] = b\n\nmixer g(a[t]) -> b[t]:\n    b[t] = b[t-1] + a\n"
    system = load_system(text)
    assert np.allclose(interpret(system, inputs={"x": X})["outputs"]["y"], np.cumsum(X, 0).T)
    assert load_system(text.replace("y[c,t] = b", "y = b")).tensors["y"].indices == ("c", "t")


@pytest.mark.parametrize(
    "lines, code, under",
    [
        (("b, m, k = g(x)", "y = b"), "too-many-targets", "k"),
        (("a, b = x", "y = a"), "too-many-targets", None),
        (("y = 2 * x",), "stray-index", "x"),
        (("y = g(y)",), "unknown-indices", "y"),
        (("a = b", "b = a", "y = a"), "unknown-indices", None),
    ],
)
def test_25_refused(lines: tuple[str, ...], code: str, under: str | None) -> None:
    refuse(one(*lines, more=MANY), code, under)


# Rule 26: a call is substitution -------------------------------------------------------------------------------------


def test_26_feedback_through_a_call() -> None:
    more = "\nfn half(x) = x / 2\n"
    want = np.zeros(4)
    for t in range(4):
        want[t] = ((want[t - 1] if t else 0) + A[t]) / 2
    check(one("y[t] = half(y[t-1] + x)", more=more), want, x=A)
    check(one("h[t] = half(z)", "z[t] = h[t-1] + x", "y[t] = h", more=more), want, x=A)
    refuse(one("y[t] = half(y + x)", more=more), "not-well-founded", None)


def test_26_functions() -> None:
    block = "\nfn norm(x[c]) -> y[c]:\n    n = sum[c] x^2\n    y[c] = x / sqrt(n)\n"
    check(body("y[t,c] = norm(x)") + block, X / np.sqrt((X**2).sum(1, keepdims=True)), x=X)
    check(body("y[t,c] = norm(norm(x) * 2)") + block, X / np.sqrt((X**2).sum(1, keepdims=True)), x=X)
    check(one("y[t] = twice(twice(x)) - twice(1)", more="\nfn twice(x) = 2 * x\n"), 4 * A - 2, x=A)
    window = "\nfn window(a[t]; W = 2) = max[j: W | j <= t](a[t-j]) - sum[k: 2] a[t-k]\n"  # indices of its own
    pairs = np.stack([A, np.concatenate([[-np.inf], A[:-1]])])
    check(one("y = window(x)", more=window), pairs.max(0) - np.where(np.isfinite(pairs), pairs, 0).sum(0), x=A)


def test_26_refused() -> None:
    refuse(body("y = f(x)"), "recursive-call", "f(x)")
    refuse(body("y[t,c] = sofmax[c](x)"), "unknown-function", "sofmax", help="did you mean `softmax`")
    refuse(body("y = g(x)") + "\nmixer g(x[t,c]) -> y[t,c]:\n    y = f(x)\n", "recursive-call", "f(x)")


def test_26_a_fault_in_a_callee_is_reported_once_and_there() -> None:
    for line in ("y = g(x)", "y[t,c] = g(x) + g(x)", "y[t,c] = g(g(x))"):
        refuse(body(line) + G.replace("+ a", "+ nothing"), "unknown-name", "nothing")


# Rule 27: gradients --------------------------------------------------------------------------------------------------

LOSS = "\nfn loss(W[c,e], k[c], v[e]) = 0.5 * sum[e] (sum[c] k * W - v)^2\n"


def test_27_a_gradient() -> None:
    text = "mixer f(W[c,e], k[c], v[e]) -> d[c,e]:\n    d[c,e] = grad[W](loss(W, k, v))\n" + LOSS
    W, k = X.T, B
    check(text, np.outer(k, k @ W - A), W=W, k=k, v=A)


def test_27_through_a_call_whose_value_is_the_function_s() -> None:
    text = "mixer f(a[c]) -> d[c]:\n    d[c] = grad[a](outer(a))\n\nfn inner(b[c]) = sum[c] b^2\n"
    check(text + "\nfn outer(a[c]) -> l:\n    u[c] = a * (c + 1)\n    l = inner(u)\n", 2 * B * np.array([1, 4, 9]), a=B)


def test_27_in_a_recurrence() -> None:
    text = "mixer f(k[t,c], v[t,e]) -> W[t,c,e]:\n    W[t,c,e] = W[t-1] - 0.1 * grad[W](loss(W[t-1], k, v))\n" + LOSS
    v, W, want = X[:, :2], np.zeros((3, 2)), []
    for t in range(4):
        W = W - 0.1 * np.outer(X[t], X[t] @ W - v[t])
        want.append(W)
    check(text, np.stack(want), k=X, v=v)


@pytest.mark.parametrize(
    "line, code, under",
    [
        ("y[t,c] = grad[x](x)", "bad-gradient", "grad[x](x)"),
        ("y[t,c] = grad[q](sq(x))", "bad-gradient", "q"),
        ("y[t,c] = grad[a](tensor(x))", "gradient-of-tensor", "tensor(x)"),
        ("y[t,c] = grad[a](last(x))", "gradient-of-recurrence", "grad[a](last(x))"),
    ],
)
def test_27_refused(line: str, code: str, under: str) -> None:
    more = (
        "\nfn sq(a[c]) = sum[c] a^2\n\nfn tensor(a[c]) = 2 * a\n"
        "\nfn last(a[c]) -> l:\n    s[c] = s[c-1] + a\n    l = s[|c|-1]\n"
    )
    refuse(body(line) + more, code, under)


# Rule 28: stacks -----------------------------------------------------------------------------------------------------


def test_28_a_stack_is_a_recurrence_over_depth() -> None:
    text = (
        "mixer f(x[t,c]; L = 3) -> y[t,c]:\n    z[-1,t,c] = x\n    z[l: L, t, c] = z[l-1] + layer(z[l-1]; per = l)\n"
        "    y[t,c] = z[L-1]\n\nmixer layer(x[t,c]) -> y[t,c]:\n    y[t, c] = linear[c -> c](x)\n"
    )
    W = np.random.default_rng(0).standard_normal((3, 3, 3))
    want = X
    for layer in range(3):
        want = want + want @ W[layer]
    check(text, want, x=X, params={f"z.{k}.y.weight": W[k] for k in range(3)})


def test_28_per_on_a_linear() -> None:
    text = "mixer f(x[t,c]; L = 2) -> y[l,t]:\n    y[l: L, t] = linear[c](x; per = l)\n"
    W = np.array([[1.0, 2, 3], [4, 5, 6]])
    check(text, W @ X.T, x=X, params={"y.weight": W})


def test_28_static_loops() -> None:
    check(body("z0 = x", "for l in 0..N:", "    z{l+1}[t,c] = z{l} + l * x", "y = z{N}", options="; N = 3"), 4 * X, x=X)
    check(
        body("for i in 0..2:", "    for j in i..2:", "        z{i}a{j}[t,c] = i + 10 * j + x", "y = z1a1"), X + 11, x=X
    )
    check(body("z0 = x", "for l in 3..3:", "    z{l}[t,c] = 7", "y = z0"), X, x=X)
    check(body("for l in 0..1:", "    a[n{l}: l + 2] = l + 5", "    y[t,c] = x + sum[n{l}] a"), X + 10, x=X)


def test_an_option_of_a_caller_decides_how_a_loop_is_unrolled() -> None:
    steps = "\nmixer g(a[t,c]; N = 1) -> b[t,c]:\n    z0 = a\n    for l in 0..N:\n        z{l+1}[t,c] = z{l} + a\n    b = z{N}\n"
    check(body("y = g(x; N = M + 1)", options="; M = 2") + steps, 4 * X, x=X)
    through = "\nmixer f2(x[t,c]; K = 1) -> y[t,c]:\n    y = g(x; N = K)\n"
    check(body("y = f2(x; K = M)", options="; M = 2") + through + steps, 3 * X, x=X)


@pytest.mark.parametrize(
    "lines, code, under",
    [
        (("for l in 0..|t|:", "    z{l}[t,c] = x", "y = x"), "dynamic-loop-bound", "|t|"),
        (("for l in 0..5000:", "    z{l}[t,c] = x", "y = x"), "too-many-iterations", None),
        (("for l in 0..2:", "    z{l-1}[t,c] = x", "y = x"), "bad-number-in-name", "l-1"),
        (("for l in 0..2:", "    for l in 0..2:", "        z{l}[t,c] = x", "y = x"), "duplicate-name", "l"),
        (("for l in 0..2:", "    z[t,c] = l * x", "y = x"), "duplicate-definition", "z[t,c]"),
        (("for l in 0..4 // 0:", "    z{l}[t,c] = x", "y = x"), "division-by-zero", None),
        (("y = z{x}",), "dynamic-loop-bound", None),
    ],
)
def test_28_refused(lines: tuple[str, ...], code: str, under: str | None) -> None:
    refuse(body(*lines), code, under)


# Rules 29 and 30: parameters -----------------------------------------------------------------------------------------


def test_29_parameters_and_constants() -> None:
    check(body("param w[c] = 2 * c", "y[t,c] = w * x"), X * [0, 2, 4], x=X)
    check(body("const w[c] = 2 * c", "y[t,c] = w * x"), X * [0, 2, 4], x=X)
    check(body("const w[j: 3] = (1, 0.5, -2)", "y[t,c] = x * w[c]"), X * [1, 0.5, -2], x=X)
    check(body("param w[j: 3] = (1, 0.5, -2)", "y[t,c] = x * w[c]"), X * [1, 0.5, -2], x=X)
    check(body("const w[j: 40] = (" + ", ".join(map(str, range(40))) + ")", "y[t,c] = x + w[37] - w[3]"), X + 34, x=X)
    check(body("param w[c]", "y[t,c] = w * x"), X * B, x=X, params={"w": B})
    check(body("param w[c] = B", "const B = 4", "y[t,c] = w * x"), 4 * X, x=X)


def test_29_random_starts() -> None:
    text = "mixer f(x[t]) -> w[n]:\n    param w[n: 4000]{}\n"

    def drawn(start: str) -> Array:
        return value(text.format(start), x=A)

    assert abs(drawn("").std() - 0.02) < 0.002 and abs(drawn(" = normal(3, 0.5)").mean() - 3) < 0.1
    assert 1 <= drawn(" = uniform(1, 2)").min() and drawn(" = uniform(1, 2)").max() <= 2
    assert abs(drawn(": complex = normal(0, 2)").std() - 2) < 0.2 and np.iscomplexobj(drawn(": complex"))
    q = value("mixer f(x[t]) -> w[n,m]:\n    param w[n: 5, m: 5] = orthogonal()\n", x=A)
    np.testing.assert_allclose(q @ q.T, np.eye(5), atol=1e-12)


@pytest.mark.parametrize(
    "lines, code, under",
    [
        (("y[t,c] = x + normal(0, 1)",), "random-outside-parameter", "normal(0, 1)"),
        (("param w[c] = normal(0)", "y[t,c] = w * x"), "wrong-number-of-arguments", "normal(0)"),
        (("param w[c] = x", "y[t,c] = w * x"), "stray-index", "x"),
        (("const w[j: 2] = (1, 2, 3)", "y[t,c] = x * w[c]"), "bad-constant", "(1, 2, 3)"),
        (("const w[t,c] = (1, 2)", "y[t,c] = x * w"), "bad-constant", "(1, 2)"),
        (("param w[n]", "y[t,c] = x * w[0]"), "unknown-index", "n"),
        (("y[t,c] = (x, x)",), "misplaced-tuple", None),
    ],
)
def test_29_refused(lines: tuple[str, ...], code: str, under: str | None) -> None:
    refuse(body(*lines), code, under)


def test_29_initialisers_read_parameters() -> None:
    text = "mixer f(x[t], s) -> y[t]:\n    param w = {}\n    const a = 4\n    param b = w\n    y[t] = w * x + b\n"
    check(text.format("2 * a"), 8 * A + 8, x=A, s=1.0)
    refuse(text.format("s"), "input-in-parameter", "s")
    refuse(text.format("a + b"), "not-well-founded", None, "`w` -> `b` depends on itself")


RNG = np.random.default_rng(7)
W32, W33 = RNG.standard_normal((3, 2)), RNG.standard_normal((3, 3))


def test_30_linear() -> None:
    text = "mixer f(x[t,c]) -> y[t,h]:\n    y[t, h: 2] = {}\n"
    check(text.format("linear[c](x)"), X @ W32, x=X, params={"y.weight": W32})
    check(text.format("linear[c -> h](x)"), X @ W32, x=X, params={"y.weight": W32})
    check(
        text.format("linear[c](x; bias = true)"),
        X @ W32 + [1, 2],
        x=X,
        params={"y.weight": W32, "y.bias": np.array([1.0, 2])},
    )
    check(text.format("linear[c](x; bias = false)"), X @ W32, x=X, params={"y.weight": W32})
    check(
        text.format("linear[c](x) + linear[c](2 * x)"),
        X @ W32 + 2 * X @ W32 * 3,
        x=X,
        params={"y.weight": W32, "y_2.weight": 3 * W32},
    )
    check(body("y[t,c] = linear[c -> c](x)"), X @ W33, x=X, params={"y.weight": W33})


def test_30_nested_and_in_a_recurrence() -> None:
    text = "mixer f(x[t,c]) -> y[t,c]:\n    y[t,c] = linear[h -> c](relu(linear[c -> h](x)))\n    a[h: 2] = h\n"
    check(text, np.maximum(X @ W32, 0) @ W32.T, x=X, params={"y_2.weight": W32, "y.weight": W32.T})
    want, h = [], np.zeros(3)
    for t in range(4):
        h = np.tanh(h @ W33 + X[t])
        want.append(h)
    check(body("y[t,c] = tanh(linear[c -> c](y[t-1]) + x)"), np.stack(want), x=X, params={"y.weight": W33})


def test_30_a_convolution() -> None:
    text = "mixer f(x[i,j]) -> y[i,j]:\n    y[i,j] = linear[a: 3, b: 3](x[i+a-1, j+b-1])\n"
    padded, want = np.pad(X, 1), np.zeros((4, 3))
    for i in range(4):
        for j in range(3):
            want[i, j] = (padded[i : i + 3, j : j + 3] * W33).sum()
    check(text, want, x=X, params={"y.weight": W33})


def test_30_names_of_norms_and_their_options() -> None:
    gelu = np.vectorize(lambda v: 0.5 * v * (1 + erf(v / np.sqrt(2))))
    check(body("y[t,c] = gelu(x)"), gelu(X), x=X)
    check(body("y[t,c] = leaky_relu(x)"), np.where(X > 0, X, 0.2 * X), x=X)
    check(body("y[t,c] = leaky_relu(x; slope = 0.5)"), np.where(X > 0, X, 0.5 * X), x=X)
    check(body("y[t,c] = rms_norm[c](x; eps = 0.1)"), X / np.sqrt((X**2).mean(1, keepdims=True) + 0.1), x=X)


@pytest.mark.parametrize(
    "right, code, under",
    [
        ("linear[c](x)", "ambiguous-linear", "linear[c](x)"),
        ("linear(x)", "bad-linear", "linear(x)"),
        ("linear[c](x, x)", "bad-linear", "linear[c](x, x)"),
        ("linear[c -> s](x)", "unknown-index", "s"),
        ("linear[c -> c](x; gain = 2)", "unknown-option", "gain = 2"),
        ("linear[c -> c](x; bias = 2)", "unknown-option", "2"),
        ("linear[c -> c](x; per = x)", "unknown-option", "x"),
        ("linear[c -> c](t)", "unused-reduction-index", None),
        ("linear[c | c > 0](x)", "unexpected-guard", "c > 0"),
        ("rms_norm[c](x; epsilon = 1)", "unknown-option", "epsilon = 1"),
        ("rms_norm[c](x; eps = x)", "option-not-constant", "x"),
    ],
)
def test_30_refused(right: str, code: str, under: str | None) -> None:
    refuse(body(f"y[t,c] = {right}"), code, under)


# Rules 31 to 33: values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "term, result",
    [
        ("7 // 2", 3),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("7 % -3", -2),
        ("-2^2", -4),
        ("2^3^2", 512),
        ("2^-1", 0.5),
        ("1 / 2", 0.5),
        ("3 - 2 - 1", 0),
        ("2 * 3 % 4", 2),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7.5 // 2", 3),
        ("-0.5 % 1", 0.5),
        ("6 / 3 / 2", 1),
        ("2 ^ 0.5", np.sqrt(2)),
        ("-3 * -2", 6),
    ],
)
def test_31_arithmetic(term: str, result: float) -> None:
    check(one(f"y[t] = {term} + 0 * x"), np.full(4, result), x=A)


@pytest.mark.parametrize(
    "term, result",
    [
        ("xor(n, 5)", [5, 4, 7, 6]),
        ("bit_and(n, 2)", [0, 0, 2, 2]),
        ("bit_length(n)", [0, 1, 2, 2]),
        ("popcount(n)", [0, 1, 1, 2]),
        ("floor(x)", np.floor(A)),
        ("ceil(x)", np.ceil(A)),
        ("round(2 * x)", np.round(2 * A)),
        ("sign(x)", np.sign(A)),
        ("abs(x)", np.abs(A)),
        ("step(x)", [1, 0, 1, 1]),
        ("clamp(x, -1, 1)", np.clip(A, -1, 1)),
        ("(x > 0) + 1", [2, 1, 2, 2]),
        ("(x > 0) * x", np.where(A > 0, A, 0)),
        ("pi * x", np.pi * A),
        ("re((1 + 1i) * (1 + 1i) + x)", A),
        ("im((1 + 1i) * (2 - 1i) + x)", [1, 1, 1, 1]),
        ("abs(3 + 4i) * x", 5 * A),
        ("re(conj(1 + 2i) * 1i) * x", 2 * A),
        ("max(x, 0, -x)", np.abs(A)),
        ("min(x, 1)", np.minimum(A, 1)),
        ("exp(-inf) * x", 0 * A),
        ("log1p(x^2)", np.log1p(A**2)),
        ("logaddexp(x, 1)", np.logaddexp(A, 1)),
        ("sigmoid(x)", 1 / (1 + np.exp(-A))),
        ("softplus(x)", np.log1p(np.exp(A))),
        ("silu(x)", A / (1 + np.exp(-A))),
        ("elu(x)", np.where(A > 0, A, np.expm1(A))),
        ("tanh(x)", np.tanh(A)),
        ("where(n == 2, 1, 0)", [0, 0, 1, 0]),
        ("where(true, x, 1)", A),
        ("stop(x)", A),
    ],
)
def test_32_values(term: str, result: Any) -> None:
    check(one("n[t] = t", f"y[t] = {term}"), result, x=A)


def test_32_types_of_inputs() -> None:
    text = "mixer f(n[t]: {}, x[t]) -> y[t]:\n    y[t] = {}\n"
    check(text.format("int", "x[n]"), A[[3, 0, 0, 2]], n=np.array([3, 0, 0, 2]), x=A)
    check(text.format("bool", "where(n, x, 0)"), [A[0], 0, 0, A[3]], n=np.array([True, False, False, True]), x=A)
    check(text.format("complex", "re(n) * im(n) + x"), A - 2, n=np.full(4, 1 - 2j), x=A)
    check(text.format("real", "n + x"), 2 * A, n=A, x=A)


@pytest.mark.parametrize(
    "right, code, under",
    [
        ("x[x]", "subscript-not-integer", "x"),
        ("x[t / 2]", "subscript-not-integer", "t / 2"),
        ("where(x == t, 1, 0)", "int-real-equality", "x == t"),
        ("where(x == 0, 1, 0)", "int-real-equality", "x == 0"),
        ("where(1i * x > 0, 1, 0)", "complex-order", "1i * x > 0"),
        ("max(1i, x)", "complex-order", "max(1i, x)"),
        ("xor(x, 1)", "wrong-type", "x"),
        ("sigmoid(1i * x)", "wrong-type", "1i * x"),
        ("where(not x, 1, 0)", "wrong-type", "x"),
        ("where(x > 0 and x, 1, 0)", "wrong-type", "x"),
        ("exp(x, 1)", "wrong-number-of-arguments", "exp(x, 1)"),
        ("round(x; grad = wrong)", "unknown-option", "wrong"),
        ("x / 0", "division-by-zero", "0"),
        ("1e400 * x", "number-too-large", "1e400"),
        ("pow(x, 2)", "unknown-function", "pow"),
        ("exp + x", "missing-arguments", "exp"),
        ("(1i * x) // 2", "wrong-type", "(1i * x)"),
        ("9223372036854775808 * x", "number-too-large", "9223372036854775808"),
        ("1e300 * 1e300 * x", "number-too-large", "1e300 * 1e300"),
        ("2^63 * 2 * x", "number-too-large", None),
    ],
)
def test_32_refused(right: str, code: str, under: str | None) -> None:
    refuse(one(f"y[t] = {right}"), code, under)


def test_33_gradients_of_steps_are_options() -> None:
    for right in ("round(x; grad = identity)", "sign(x; grad = clamp)", "step(x; grad = atan)"):
        name = right.partition("(")[0]
        want = {"round": np.round(A), "sign": np.sign(A), "step": (A >= 0) * 1.0}[name]
        check(one(f"y[t] = {right}"), want, x=A)
    text = "mixer f(a[c]) -> d[c]:\n    d[c] = grad[a](l(a))\n\nfn l(a[c]) = sum[c] {} * (c + 1)\n"
    check(text.format("round(a; grad = identity)"), [1, 2, 3], a=B)
    check(text.format("round(a)"), [0, 0, 0], a=B)
    check(text.format("stop(a) * a"), B * [1, 2, 3], a=B)


# Rule 34: monoids ----------------------------------------------------------------------------------------------------

SUBTRACT = "\nmonoid minus(a):\n    combine(p, q):\n        a = p.a - q.a\n"
MEAN = (
    "\nmonoid average(s, n):\n    identity = (0, 0)\n    lift(x) = (x, 1)\n    combine(p, q):\n        s = p.s + q.s\n"
    "        n = p.n + q.n\n    project -> m:\n        m = s / max(n, 1)\n"
)
MATRIX = (
    "\nmonoid matmul(m[i,j]):\n    identity = (where(i == j, 1, 0))\n    combine(a, b):\n"
    "        m[i,j] = sum[k] a.m[i,k] * b.m[k,j]\n"
    "        index k over i\n    claim associative\n"
)


def test_34_the_balanced_tree() -> None:
    a, b, c, d = A
    check("mixer f(x[t]) -> y:\n    y[] = minus[t](x)\n" + SUBTRACT, (a - b) - (c - d), x=A)
    five = np.array([1.0, 2, 4, 8, 16])
    check("mixer f(x[t]) -> y:\n    y[] = minus[t](x)\n" + SUBTRACT, ((1 - 2) - (4 - 8)) - 16, x=five)


def test_34_used_as_a_sum_is() -> None:
    check(one("index s over t", "y[t] = average[s | s <= t](x[s])", more=MEAN), np.cumsum(A) / np.arange(1, 5), x=A)
    check(one("y[t] = average[t](x) * x", more=MEAN), A.mean() * A, x=A)
    check(one("y[t] = average[t | x > 99](x) + x", more=MEAN), A, x=A)
    check("mixer f(x[t,c]) -> y[c]:\n    y[c] = average[t](x)\n" + MEAN, X.mean(0), x=X)


def test_34_fields_with_indices() -> None:
    M = RNG.standard_normal((4, 2, 2))
    text = "mixer f(x[t,i,j]) -> y[t,i,j]:\n    index s over t\n    y[t,i,j] = matmul[s | s <= t](x[s])\n" + MATRIX
    want = [M[0]]
    for t in range(1, 4):
        want.append(want[-1] @ M[t])
    check(text, np.stack(want), x=M)


def test_34_elements_may_be_complex() -> None:
    z = np.array([1 + 1j, 2j, 3])
    text = "mixer f(x[t]: complex) -> y:\n    y[] = times[t](x)\n\nmonoid times(a):\n    combine(p, q):\n        a = p.a * q.a\n"
    check(text, z.prod(), x=z)


@pytest.mark.parametrize(
    "block, code, under",
    [
        ("combine(p, q):\n        a = p.a + q.b", "unknown-field", "q.b"),
        ("identity = (0, 0)\n    combine(p, q):\n        a = p.a + q.a", "wrong-number-of-fields", "(0, 0)"),
        ("lift(x) = (x, x)\n    combine(p, q):\n        a = p.a + q.a", "wrong-number-of-fields", "(x, x)"),
        ("combine(p, q):\n        b = p.a + q.a", "missing-field", "m"),
        ("combine(p, q):\n        a = b + q.a\n        b = a", "not-well-founded", None),
        ("combine(p, q):\n        a = linear[c](p.a) + q.a", "fold-in-monoid", "linear[c](p.a)"),
        ("combine(p, q):\n        a = m[t](p.a) + q.a", "fold-in-monoid", "m[t](p.a)"),
        ("combine(p, q):\n        a = xor(p.a, 1) + q.a", "wrong-type", "p.a"),
        ("combine(p, q):\n        param w\n        a = p.a + w * q.a", "unexpected-statement", "param w"),
        ("lift(x[n]) = (1)\n    combine(p, q):\n        a = p.a + q.a", "unbound-axis", "m[t](x)"),
    ],
)
def test_34_refused(block: str, code: str, under: str | None) -> None:
    refuse(f"mixer f(x[t,c]) -> y[c]:\n    y[c] = m[t](x)\n\nmonoid m(a):\n    {block}\n", code, under)


@pytest.mark.parametrize(
    "use, code, under",
    [
        ("minus(x)", "missing-indices", "minus(x)"),
        ("minus[t](x, x)", "wrong-number-of-arguments", "minus[t](x, x)"),
        ("minus[t -> s](x)", "unexpected-arrow", "[t -> s]"),
        ("minus[t](x; N = 2)", "unknown-option", "N = 2"),
        ("minus[t | x](x)", "not-a-condition", "x"),
    ],
)
def test_34_refused_uses(use: str, code: str, under: str) -> None:
    refuse(one(f"y[t] = x + {use}", more=SUBTRACT), code, under)


def test_34_an_empty_fold_needs_an_identity() -> None:
    with pytest.raises(SizeError, match="empty-fold"):
        value("mixer f(x[t]) -> y:\n    y[] = minus[t](x)\n" + SUBTRACT, x=A[:0])


# Rule 35: claims -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claim, kind, args",
    [
        ("causal", "causal", ("t",)),
        ("causal(c)", "causal", ("c",)),
        ("stable(S)", "stable", ("S",)),
        ("linear(x)", "linear", ("x",)),
        ("permutation(t)", "permutation", ("t",)),
        ("shift(t)", "shift", ("t",)),
        ("shift(t, N)", "shift", ("t",)),
        ("rows_sum_to_one(x, c)", "rows_sum_to_one", ("x", "c")),
        ("doubly_stochastic(x, t, c)", "doubly_stochastic", ("x", "t", "c")),
        ("y == S", "equal", None),
        ("y == 2 * x - x + 0", "equal", None),
        ("cost(y) <= |t| * |c|", "cost", ("y",)),
    ],
)
def test_35_claims(claim: str, kind: str, args: tuple[str, ...] | None) -> None:
    text = body("S[t,c] = x", "y[t,c] = S", f"claim {claim}, causal when N > 1", options="; N = 2")
    found = load_system(text).claims
    assert [c.kind for c in found] == [kind, "causal"] and (args is None or found[0].args == args)
    assert all(c.condition is not None for c in found) and found[0].text == claim


def test_35_an_equality_has_both_sides_as_tensors() -> None:
    (claim,) = load_system(body("y[t,c] = y[t-1] + x", "claim y == g(x)") + G).claims
    assert claim.system is not None
    left, right = interpret(claim.system, inputs={"x": X})["outputs"].values()
    assert np.array_equal(left, right)


@pytest.mark.parametrize(
    "claim, code, under",
    [
        ("fast", "unknown-claim", "fast"),
        ("stable(t)", "claim-argument", "t"),
        ("stable", "wrong-number-of-arguments", "stable"),
        ("causal(x)", "claim-argument", "x"),
        ("causal(t, c)", "wrong-number-of-arguments", "causal(t, c)"),
        ("associative", "unknown-claim", "associative"),
        ("y < x", "unknown-claim", "y < x"),
        ("cost(2) <= 3", "claim-argument", None),
        ("y == nothing", "unknown-name", "nothing"),
        ("1 == 2", "claim-argument", "1 == 2"),
        ("stable(x + y)", "claim-argument", "x + y"),
        ("causal when x", "not-a-condition", "x"),
    ],
)
def test_35_refused(claim: str, code: str, under: str | None) -> None:
    refuse(body("y[t,c] = x", f"claim {claim}"), code, under)


# Rules 36 to 38: text ------------------------------------------------------------------------------------------------


def test_36_comments() -> None:
    system = load_system(
        "# What it is.\n# And more.\nmixer f(x[t]) -> y[t]:\n    # above\n    y[t] = exp(\n        x)  # beside\n"
    )
    assert system.doc == ("What it is.", "And more.")
    assert system.tensors["y"].comment == "above\nbeside\ny[t] = exp( x)"


def test_36_an_equation_may_go_on() -> None:
    check(one("y[t] = x +", "    2 * x"), 3 * A, x=A)
    refuse("mixer f(x[t]) -> y[t]:\n    y[t] = x\n        y2[t] = x\n", "unexpected-indent", None)


def test_37_a_library_import_and_what_does_not_exist() -> None:
    refuse("import nothing from nowhere\n\n" + one("y[t] = x"), "unknown-import", "nowhere")
    refuse("import nothing from gla\n\n" + one("y[t] = x"), "unknown-import", "nothing")
    refuse(one("y = gla(x, x, x, x)"), "unknown-function", "gla")


@pytest.mark.parametrize(
    "line",
    [
        "y[t] = __import__(x)",
        "y[t] = x.__class__",
        "y[t] = eval(x)",
        "y[t] = lambda(x)",
        "y[t] = x if x",
        "y[t] = torch.exp(x)",
        'y[t] = "x"',
        "y[t] = x; import os",
        "y[t] = `x`",
        "y[t] = {x}",
        "@decorated",
        "exec(x)",
    ],
)
def test_38_no_escapes(line: str) -> None:
    with pytest.raises(SeqError):
        load_system(one(line))
