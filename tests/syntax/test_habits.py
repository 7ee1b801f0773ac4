"""Habits of other languages: each has its code, its place, and a help that says what to write instead."""

from __future__ import annotations

import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.syntax import parse_text

# In the body of a mixer, from x[t,c] to y[t,c]: (line, code, text under the span, words of the help)
LINES = [
    # statements
    ("claims causal", "unknown-statement", "claims", "did you mean `claim`?"),
    ("parm w[c] = 1", "unknown-statement", "parm", "`param`"),
    ("index s = t", "unexpected-token", "=", "`index s over t`"),
    ("index s, r over t", "unexpected-token", ",", "index s over t, r over u"),
    ("for l in range(4):\n        z{l} = x", "unexpected-token", ":", "`for l in 0..4:`"),
    ("for l in 0:4:\n        z{l} = x", "unexpected-token", ":", "`for l in 0..4:`"),
    ("for l in 0...4:\n        z{l} = x", "unexpected-token", "...", "`0..4`"),
    ("for l = 0..4:\n        z{l} = x", "unexpected-token", "=", "`for l in 0..4:`"),
    ("(y, z) = g(x)", "unexpected-token", "(", "without parentheses"),
    ("y(t,c) = x", "unexpected-token", "(", "`y[t]`"),
    ("y[t][c] = x", "unexpected-token", "[", "`y[t,c]`"),
    ("y[t;c] = x", "unexpected-token", ";", "separated by `,`"),
    ("y[t c] = x", "unexpected-token", "c", "separated by `,`"),
    ("y: Tensor = x", "unexpected-token", ":", "alone have types"),
    ("y[t,c] <- x", "equation-sign", "<-", ""),
    ("y[t,c] = x;", "unexpected-token", ";", "a line of its own"),
    ("y[t,c] = x\n    + 1", "unexpected-token", "+", "indented deeper"),
    ("y[t,c] =\n    x", "unexpected-end", "", "indented deeper"),
    ("claim causal if x > 0", "unexpected-token", "if", "`when`"),
    ("claim linear(x) where x > 0", "unexpected-token", "where", "`when`"),
    ("y[t,c]  sigmoid(x)", "unexpected-token", "sigmoid", "write `=` before it"),
    ("[t,c] = x", "unexpected-token", "[", "missing before it"),
    ("y[,c] = x", "unexpected-token", ",", "one too many"),
    ("y[t,c] = x * * 2", "unexpected-token", "*", "one too many"),
    ("y[t,c] = x)", "unmatched-bracket", ")", "leave it out"),
    ("y[t,c] = x +", "unexpected-end", "", "what follows `+`"),
    # words and operators
    ("y[t,c] = x && x", "unexpected-character", "&&", "`and`"),
    ("y[t,c] = sum[c | x =< 0] x", "unexpected-token", "=<", "`<=`"),
    ("y[t,c] = lambda a: a", "unexpected-token", "lambda", "`fn g(x) = ..`"),
    ("y[t,c] = if x > 0 then x else 0", "unexpected-token", "if", "where("),
    ("y[t,c] = x mod 2", "unexpected-token", "mod", "`%`"),
    ("y[t,c] = not x is None", "unexpected-token", "is", "`==`"),
    ("y[t,c] = 1j * x", "bad-number", "1j", "`1i`"),
    ("y[t,c] = real(x)", "keyword-as-name", "real", "`re(x)`"),
    # brackets
    ("y[t,c] = x[:, 1]", "unexpected-token", ":", "`x[t-1]`"),
    ("y[t,c] = x[1:]", "unexpected-token", ":", "`x[t-1]`"),
    ("y[t,c] = x[..., c]", "unexpected-token", "..", "`x[t-1]`"),
    ("y[t,c] = x[t][c]", "unexpected-token", "[", "`x[t,c]`"),
    ("y[t,c] = g(x)[0]", "unexpected-token", "[", "an equation of its own"),
    ("y[t,c] = g(x).o", "unexpected-token", ".", "an equation of its own"),
    ("y[t,c] = M[t] x", "unexpected-token", "x", "`M[t](x)`"),
    ("y[t,c] = sum[c, x]", "unexpected-end", "", "behind the brackets"),
    ("y[t,c] = [x]", "unexpected-token", "[", "no lists"),
    ("const w[j: 2] = [1, 2]", "unexpected-token", "[", "`(1, 2)`"),
    ("y[t,c] = sum[c | x > 0, x < 1] x", "unexpected-token", ",", "joined by `and`"),
    ("y[t,c] = sum[c | x > 0 | x < 1] x", "unexpected-token", "|", "joined by `and`"),
    ("y[t,c] = sum[c if x > 0] x", "unexpected-token", "if", "follows `|`"),
    ("y[t,c] = softmax[c](x | c < 2)", "unexpected-token", "|", "behind the indices"),
    ("y[t,c] = sum[c](x; eps = 1)", "unexpected-token", ";", "only calls have settings"),
    ("y[t,c] = where(x > 0; x, 0)", "unexpected-token", ",", "separated by `,`"),
    ("y[t,c] = g(x, per = l)", "setting-before-semicolon", "per", "`; per = ..`"),
]


@pytest.mark.parametrize("line, code, under, help", LINES)
def test_lines(line: str, code: str, under: str, help: str) -> None:
    check(f"mixer f(x[t,c]) -> y[t,c]:\n    {line}\n", code, under, help)


TEXTS = [
    # one character that is missing in a header, whatever stands below
    ("mixer f(x[t]) -> y[t]\n    index s over t\n    y[t] = x\n", "missing-colon", "", "`:`"),
    ("mixer f(x[t]) -> y[t]\n    param w[t]\n    y[t] = x\n    claim causal\n", "missing-colon", "", "`:`"),
    ("mixer f(x[t])\n    param w[t]\n    y[t] = x\n", "missing-arrow", "", "`-> y[t]:`"),
    ("mixer f(x[t], g[t) -> y[t]:\n    z[t] = x\n    y[t] = z\n", "unmatched-bracket", ")", "`]` before it"),
    ("mixer f(x[t] H = 4) -> y[t]:\n    y[t] = x\n", "unexpected-token", "H", "`;`"),
    ("mixer f(x[t]; H 4) -> y[t]:\n    y[t] = x\n", "unexpected-token", "4", "`=`"),
    ("mixer f(x[t]) y[t]:\n    y[t] = x\n", "unexpected-token", "y", "`->`"),
    ("import gla\n", "unexpected-end", "", "import gla, GLA from gla"),
    ("import numpy as np\n", "unexpected-token", "as", "keep their names"),
    ("Mixer f(x[t]) -> y[t]:\n    y[t] = x\n", "unknown-statement", "Mixer", "`mixer`"),
    ("mixer f(x[t]) => y[t]:\n    y[t] = x\n", "unexpected-token", "=>", "`->`"),
    ("mixer f(x[t]) -> (y[t]):\n    y[t] = x\n", "unexpected-token", "(", "without parentheses"),
]


@pytest.mark.parametrize("text, code, under, help", TEXTS)
def test_texts(text: str, code: str, under: str, help: str) -> None:
    check(text, code, under, help)


def check(text: str, code: str, under: str, help: str) -> None:
    with pytest.raises(SeqError) as caught:
        parse_text(text)
    (fault,) = caught.value.diagnostics
    assert fault.span is not None
    assert (fault.code, fault.span.text) == (code, under), str(caught.value)
    assert help in fault.help, str(caught.value)
