"""Mixers from outside: mistakes that were accepted in silence, and unusual texts that are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.semantics import load_file, load_system

from .support import X, body, check, refuse

SUM = "\nmonoid plus(m):\n    combine(p, q):\n        m = p.m + q.m\n"
GATED = "\nmixer g(a[t,c]) -> b[t,c]:\n    b[t,c] = linear[c -> c](a)\n"
DIFFERENCE = SUM.replace("plus", "minus").replace("+ q", "- q")

MISTAKES = [  # a text, the code, what stands at the place
    (body("for t in 0..2:", "    z{t}[t,c] = x", "y[t,c] = x"), "name-clash", "t"),
    (body("for y in 0..2:", "    z{y}[t,c] = x", "y[t,c] = x"), "name-clash", "y"),
    (body("for n in 0..2:", "    z{n}[t,c] = x", "y[t,c] = x + sum[n: 2] n * x"), "name-clash", "n"),
    (body("for N in 0..2:", "    z{N}[t,c] = x", "y[t,c] = x * N", options="; N = 3"), "duplicate-name", "N"),
    (body("index t over t", "y[t,c] = x"), "duplicate-index", "t over t"),
    (body("index s over t", "index s over c", "y[t,c] = sum[s] x[s]"), "duplicate-index", "s over c"),
    (body("index s over t", "y[t,c] = sum[s: 4] x[s]"), "duplicate-index", "s over t"),
    (body("y[t,c] = max[j: 3](x[t+j])"), "unguarded-read", "x[t+j]"),
    (body("y[t,c] = max[j: W](x[t+j])", options="; W = 3"), "unguarded-read", "x[t+j]"),
    (body("y[t,c] = max[a: 3](x[t+a-1])"), "unguarded-read", "x[t+a-1]"),
    (body("y[t,c] = max[a: 3 | t + a >= 1](x[t+a-1])"), "unguarded-read", "x[t+a-1]"),
    (body("y[t,c] = max[j: 3](where(t < j, x[t-j], 0))"), "unguarded-read", "x[t-j]"),
    (body("param w[c]: int", "y[t,c] = x * w"), "wrong-type", "param w[c]: int"),
    (body("param w[c] = normal(0, -1)", "y[t,c] = x * w"), "bad-draw", "-1"),
    (body("param w[c] = uniform(3, 1)", "y[t,c] = x * w"), "bad-draw", "uniform(3, 1)"),
    (body("param w = orthogonal()", "y[t,c] = x * w"), "missing-indices", "orthogonal()"),
    (body("y[t,c] = rms_norm[c](x; eps = 1, eps = 2)"), "duplicate-setting", "eps = 2"),
    (body("y = g(x; N = 1, N = 2)") + "\nfn g(x; N = 3) = N * x\n", "duplicate-setting", "N = 2"),
    (body("y[t,c] = g(x)") + "\nfn g(x[c]) -> y[c]:\n    param w[c]\n    y[c] = w * x\n", "unexpected-statement", "param w[c]"),
    (body("y[t,c] = g(x)") + "\nfn g(x[c]) -> y[c]:\n    y[c] = x\n    claim causal\n", "unexpected-statement", "claim causal"),
    ("fn g(x[c]) = linear[c](x)\n\n" + body("y[t,c] = x"), "unexpected-statement", "linear[c](x)"),
    (body("index s over t", "y[t,c] = plus[s | s < t](x[s])") + SUM, "empty-fold", "plus[s | s < t](x[s])"),
    (body("y[c,t] = x * 9^9^9^9"), "number-too-large", "9^9^9"),
    (body("y[t,c] = x * 9.5^9.5^9.5^9.5"), "number-too-large", "9.5^9.5^9.5"),
    (body("y[t,c] = x + t // 0"), "division-by-zero", "0"),
    (body("y[t,c] = x % 0"), "division-by-zero", "0"),  # rule 31
    (body("y[t,c] = x ** 2"), "unexpected-token", "**"),
    (body("y[t,c] = 2x"), "bad-number", "2x"),
    (body("y[t,c] = exp(x; grad = identity)"), "unknown-option", "grad = identity"),  # rule 33
    (body("y[t,c] = dropout(x; p = 0)"), "unknown-function", "dropout"),
    (body("y[t,c] = x + uniform(0, 1)"), "random-outside-parameter", "uniform(0, 1)"),
    (body("p[t,s] = softmax[s](sum[c] x * x)", "index s over t", "y[t,c] = sum[s] p * x[s]"), "unused-reduction-index", "s"),
    (body("y[c] = x"), "stray-index", "x"),
    (body("y[t,c] = x", "claim casual"), "unknown-claim", "casual"),
    (body("y[t,c] = x @ x"), "host-language", "@"),
    (body('"""A docstring."""', "y[t,c] = x"), "host-language", '"""A docstring."""'),
    (body("for l in 0..2:", "    z{l}[t,c] = x", "    claim z{l} == z0, fast", "y[t,c] = x"), "unknown-claim", "fast"),
    # rule 4: the wrong index is bound
    (body("h[t, n: 4] = linear[n](x)", "y[t,c] = linear[n](h)"), "unused-reduction-index", "n"),
    (body("h[t, n: 4] = linear[c, n](x)", "y[t,c] = linear[n](h)"), "unused-reduction-index", "n"),
    ("mixer f(q[t,d], k[t,d], v[t,e]) -> o[t,e]:\n    o[t,e] = v * sum[e] q * k\n", "unused-reduction-index", "e"),
    # rule 8
    (body("y[t,c] = x", options="; H = H"), "unknown-size", "H"),
    (body("y[t,c] = x", options="; A = B, B = 2"), "unknown-size", "B"),
    # rule 28
    (body("z[l: 4, t, c] = g(z[l-1]; per = n)", "y[t,c] = z[3]") + GATED, "unknown-index", "n"),
    (body("z[l: 4, t, c] = g(z[l-1]; per = 4)", "y[t,c] = z[3]") + GATED, "not-an-index", "4"),
    # rules 34 and 35: a claim of a monoid, and a cost that is no bound
    (body("y[t,c] = plus[s: 3](x * s)") + SUM + "    claim associatve\n", "unknown-claim", "associatve"),
    (body("y[t,c] = plus[s: 3](x * s)") + SUM + "    claim causal\n", "unknown-claim", "causal"),
    (body("y[t,c] = plus[s: 3](x * s)") + SUM + "    claim associative when m > 0\n", "claim-argument", "m > 0"),
    (body("y[t,c] = x", "claim cost(y) == |t|"), "claim-argument", "cost(y) == |t|"),
    (body("y[t,c] = x", "claim cost(y) >= |t|^3"), "claim-argument", "cost(y) >= |t|^3"),
    # rule 38
    (body("y[t,c] = x.T"), "host-language", "x.T"),
    (body("y[t,c] = math.pi * x"), "host-language", "math.pi"),
    (body("a = nothing * x", "b = g(a)", "y[t,c] = a + b") + "\nmixer g(x[t]) -> y[t]:\n    y = x\n", "unknown-name", "nothing"),
]


@pytest.mark.parametrize("text, code, under", MISTAKES, ids=[f"{k}-{m[1]}" for k, m in enumerate(MISTAKES)])
def test_mistakes(text: str, code: str, under: str) -> None:
    refuse(text, code, under)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("import glaa from gla\n\n" + body("y[t,c] = x"), "did you mean `GLA` or `gla`?"),
        (body("y[t,c] = x", "claim casual"), "did you mean `causal`?"),
        (body("y[t,c] = x * mean[t] 1"), "the body alone is its own mean"),
        (body("h[t, n: 4] = linear[n](x)", "y[t,c] = linear[n](h)"), "did you mean `c`?"),
        (body("y[t,c] = where(x > True, x, 0)"), "write `true`"),
        (body("y[t,c] = exp(i * x)"), "the imaginary unit is `1i`"),
        (body("y[t,c] = |x|"), "its absolute value is `abs(x)`"),
        (body("y[t,c] = not x"), "compare it, as in `x > 0`"),
        (body("y[t,c] = x / x.shape"), "the length of an axis is `|t|`"),
        (body("a[n: len(t)] = 1", "y[t,c] = x"), "the length of an axis is `|t|`"),
        (body("y[t,c] = x", options="; H = B, B = 2"), "a default reads the options that stand before it"),
        (body("y[t,c] = plus[s: 3](x * s)") + SUM.replace("p.m +", "p +"), "an element is read field by field: `p.m`"),
        (body("y[t,c] = x", "claim causal and linear(x)"), "write `causal, linear(x)`"),
        (body("y[t,c] = x", "claim stable"), "write `stable(S)`"),
        (body("y[t,c] = x", "claim linear(z)"), "there are `x`, `y`"),
    ],
)
def test_help_names_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(SeqError) as caught:
        load_system(text)
    assert [d.help for d in caught.value.diagnostics] == [meant]


PADDED = np.pad(X, ((1, 1), (0, 0)), constant_values=-np.inf)
RIGHT = [  # equations of y[t,c] from x[t,c], and the value
    (("y[t,c] = max[a: 3 | 0 <= t + a - 1 < |t|](x[t+a-1])",), np.max([PADDED[k : k + 4] for k in range(3)], 0)),
    (("y[t,c] = max[j: 2](where(j <= t, x[t-j], -inf))",), np.maximum(X, PADDED[:4])),
    (("y[t,c] = max[j: 2](where(t < j, -inf, x[t-j]))",), np.maximum(X, PADDED[:4])),
    (("y[t,c] = x * (0^0 + 0^5 + (-1)^999999999 + 1^99) + 2^-1",), X + 0.5),
    (("for l in 0..2:", "    z{l}[t,c] = x * l", "    claim z{l} == l * x", "y[t,c] = z0 + z1"), X),
]


@pytest.mark.parametrize("lines, expected", RIGHT, ids=str)
def test_right(lines: tuple[str, ...], expected: np.ndarray) -> None:
    check(body(*lines), expected, x=X)


def test_windows_that_fit_need_no_guard() -> None:
    pooled = "mixer f(x[t,c]) -> y[a,c]:\n    y[a: |t| // 2, c] = max[j: 2](x[2*a+j])\n"
    check(pooled, np.maximum(X[::2], X[1::2]), x=X)
    load_system("mixer f(x[t,c]; w = 3) -> y[a,c]:\n    y[a: (|t| + w - 1) // w, c] = max[j: w | a*w + j < |t|](x[a*w+j])\n")


def test_claims_inside_a_static_loop_are_claims() -> None:
    system = load_system(body("for l in 0..3:", "    z{l}[t,c] = x", "    claim z{l} == x, causal", "y[t,c] = x"))
    assert [claim.kind for claim in system.claims] == ["equal", "causal"] * 3
    assert all(claim.system is not None for claim in system.claims if claim.kind == "equal")


def test_a_guarded_fold_needs_associativity() -> None:
    scan = body("index s over t", "y[t,c] = minus[s | s <= t](x[s])") + DIFFERENCE
    program = seqdsl.load(scan)
    with pytest.raises(SeqError) as caught:
        program.derived()
    assert caught.value.code == "not-associative" and "give -1 and 1" in str(caught.value)
    assert [d.code for d in program.check().refuted()] == ["not-associative"]
    whole = seqdsl.load("mixer f(x[t]) -> y:\n    y = minus[t](x)\n" + DIFFERENCE)
    assert whole.check().ok and whole.interpret({"x": [1.0, 2.0, 4.0]})["outputs"]["y"] == -5
    assert seqdsl.load(scan.replace("minus", "plus").replace("- q", "+ q")).check().ok


def codes(text: str) -> list[str]:
    with pytest.raises(SeqError) as caught:
        load_system(text)
    return [d.code for d in caught.value.diagnostics]


def test_faults_of_declarations_are_reported_together_and_once() -> None:
    text = body("index s over q", "a[t,e] = x", "b[t,e] = x", "h[t, n: N] = x[t,n]", "y[t,c] = sum[s] x[s]", "y[t,c] = 1")
    assert codes(text) == ["unknown-index", "unknown-index", "unknown-size", "duplicate-definition"]
    assert codes(body("a[n: 0] = n", "b[m: 7 / 2] = m", "y[t,c] = x + xor(x, 1)")) == [
        "bad-size", "inexact-division", "wrong-type"]  # fmt: skip


def test_an_import_stays_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.seq").write_text("fn g(x) = x\n")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "g.seq").symlink_to(tmp_path / "secret.seq")
    (inside / "same.seq").write_text("fn g(x) = x\n")
    (inside / "h.seq").symlink_to(inside / "same.seq")
    for name, code in (("g", "unknown-import"), ("h", "")):
        path = inside / "f.seq"
        path.write_text(f"import g from {name}\n\nmixer f(x[t]) -> y[t]:\n    y[t] = g(x)\n")
        try:
            load_file(path)
            found = ""
        except SeqError as error:
            found = error.code
        assert found == code
