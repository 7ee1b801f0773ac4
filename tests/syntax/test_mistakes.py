"""What the parser refuses: for each mistake its code, the text under its span, and words that help."""

from __future__ import annotations

import pytest

from seqdsl.diagnostics import Diagnostic, SeqError
from seqdsl.syntax import parse_text
from seqdsl.syntax.faults import SYNTAX

HEADER = "mixer f(x[t,c]; N = 3) -> y[t,c]:\n    "
MONOID = "monoid m(x):\n    "
COMBINE = "combine(a, b):\n        x = a.x + b.x\n    "


def faults(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SeqError) as caught:
        parse_text(text)
    for fault in caught.value.diagnostics:
        assert fault.code in SYNTAX
        assert fault.span is not None
        lines = fault.span.source.text[: fault.span.start].split("\n")
        assert (fault.span.line, fault.span.column) == (len(lines), len(lines[-1]) + 1)
        words = f"{fault.message} {fault.label} {' '.join(fault.notes)} {fault.help}"
        assert not any(name in words for name in ("LPAR", "RSQB", "_NL", "$END", "_INDENT", "__ANON", "Token("))
        assert fault.message[0] in "`0123456789U" or fault.message[0].islower()
        assert not fault.message.endswith(".")
    return caught.value.diagnostics


def check(text: str, code: str, under: str, said: str = "") -> None:
    """A text has this one fault, at this place, and `said` occurs in what is told."""
    (fault,) = faults(text)
    assert fault.span is not None
    assert (fault.code, fault.span.text) == (code, under)
    assert said in f"{fault.message} / {fault.help}"


@pytest.mark.parametrize("code, fault", [(code, fault) for code, fault in SYNTAX.items() if fault.example])
def test_the_example_of_each_code_has_that_fault(code: str, fault: tuple[str, str]) -> None:
    assert fault[0].endswith(".")
    assert [found.code for found in faults(fault[1])] == [code]


# In the body of a mixer: (line, code, text under the span, words in message or help)
LINES = [
    # rule 13
    ("y = a / sum[s] b * c", "sum-after-division", "*", "(a / sum[s] b) * c"),
    ("y = a / sum[s] b // c", "sum-after-division", "//", "parenthesise"),
    ("y = a % -sum[s] b / c", "sum-after-division", "/", "parenthesise"),
    ("y = a / sum[s] sum[d] b", "sum-after-division", "sum", "parenthesise"),
    ("y = 2^sum[c] x", "sum-in-power", "sum", "parenthesise"),
    ("y = 2^-mean[c] x", "sum-in-power", "mean", "parenthesise"),
    ("y = sum(x)", "sum-without-index", "sum", "sum[d] x"),
    ("y = mean x", "sum-without-index", "mean", "mean[d] x"),
    ("y = x[sum: 3]", "sum-without-index", "sum", ""),
    ("y = prod[s] x", "missing-arguments", "prod", "prod[..](..)"),
    ("y = max[s | s < t] 1", "missing-arguments", "max", "max[..](..)"),
    ("y = softmax[s | s < t]", "missing-arguments", "[s | s < t]", "softmax[s | s < t](..)"),
    ("y = linear[c -> h]", "missing-arguments", "[c -> h]", "->"),
    ("y = linear[c: 3] + 1", "missing-arguments", "[c: 3]", ":"),
    # rules 2, 7, 19: left sides
    ("y[t+1] = x", "not-an-index", "+", "y[t] = x[t-1]"),
    ("y[2*t] = x", "not-an-index", "*", ""),
    ("y[|t|-1] = x", "not-an-index", "-", ""),
    ("y[x[t]] = x", "not-an-index", "[", ""),
    ("param w[0] = 1", "not-an-index", "0", ""),
    ("param w[c-1] = 1", "not-an-index", "-", ""),
    ("y[-N] = x", "unexpected-token", "N", "a number"),
    ("y[t = x", "unclosed-bracket", "[", "]"),
    # rules 23, 28, 33: calls and statements there are none of
    ("y = f(x, bias = true)", "setting-before-semicolon", "bias", "; bias = .."),
    ("y = f(bias = true)", "setting-before-semicolon", "bias", ""),
    ("y = f(x; 3)", "unexpected-token", "3", "a setting"),
    ("y = f(x; per)", "unexpected-token", ")", "`=`"),
    ("if x > 0:\n        y = x", "unknown-statement", "if", "where("),
    ("while x:\n        y = x", "unknown-statement", "while", "recurrence"),
    ("return y", "unknown-statement", "return", "header"),
    ("let y = x", "unknown-statement", "let", ""),
    ("y = a if b else c", "unexpected-token", "if", "where("),
    # rule 29
    ("y = 2 * (1, 2)", "misplaced-tuple", ",", "tuple"),
    ("y = (1, 2)", "misplaced-tuple", ",", ""),
    ("param W[c]: float = 3", "unknown-type", "float", "real by default"),
    ("param W[c]: integer", "unknown-type", "integer", "`int`"),
    ("param W[c]: = 3", "unknown-type", "=", "`int`"),
    # rule 35, `=` and `==`
    ("claim y = x", "assignment-in-expression", "=", "=="),
    ("y = a = b", "assignment-in-expression", "=", "=="),
    ("y = sum[s | s = t] x", "assignment-in-expression", "=", "=="),
    ("y = where(a + 1 = b, 1, 2)", "assignment-in-expression", "=", "=="),
    ("y == x", "equation-sign", "==", "`=`"),
    ("y[t] += x", "equation-sign", "+=", "`=`"),
    ("y := x", "equation-sign", ":=", "`=`"),
    ("claim", "unexpected-end", "", "an expression"),
    ("claim causal when", "unexpected-end", "", "an expression"),
    ("claim causal when a, b", "unexpected-token", ",", "an operator"),
    # rule 37
    ("in[t] = x", "keyword-as-name", "in", "`in_`"),
    ("index[t] = x", "keyword-as-name", "index", ""),
    ("claim = x", "keyword-as-name", "claim", ""),
    ("y = for * 2", "keyword-as-name", "for", ""),
    ("sum = x", "keyword-as-name", "sum", ""),
    ("y = per", "keyword-as-name", "per", ""),
    ("y = |mean|", "keyword-as-name", "mean", ""),
    ("index real over t", "keyword-as-name", "real", ""),
    ("y = f(x; index = 2)", "keyword-as-name", "index", ""),
    # rule 38
    ('y = "abc # x"', "host-language", '"abc # x"', "strings"),
    ("y = `x`", "host-language", "`x`", "strings"),
    ("y = 'x", "host-language", "'", "strings"),
    ("y = x @ w", "host-language", "@", ""),
    ("y = x.sum()", "host-language", "x.sum", "no methods"),
    ("y = torch.exp(x)", "host-language", "torch.exp", "`exp(x)`"),
    ("y = torch.nn.silu(x)", "host-language", "torch.nn", ""),
    # characters
    ("y = α * x", "unexpected-character", "α", "`alpha`"),
    ("y = Λ", "unexpected-character", "Λ", "`Lambda`"),
    ("y = ς", "unexpected-character", "ς", "`sigma`"),
    ("y = x − 1", "unexpected-character", "−", "`-`"),
    ("y = x × 2", "unexpected-character", "×", "`*`"),
    ("y = x ≤ 2", "unexpected-character", "≤", "`<=`"),
    ("y = ａ", "unexpected-character", "ａ", "`a`"),
    ("y = ñ", "unexpected-character", "ñ", "ASCII"),
    ("y = x\u00a0+ 1", "unexpected-character", "\u00a0", "plain blank"),
    ("y = x\u200b + 1", "unexpected-character", "\u200b", "plain blank"),
    ("y = x & z", "unexpected-character", "&", "`and`"),
    ("y = !x", "unexpected-character", "!", "`not`"),
    ("y = x ? 1", "unexpected-character", "?", "where("),
    ("y = x ~ 1", "unexpected-character", "~", ""),
    ("y = x # a remark\r+ 1", "unexpected-character", "\r", "carriage return"),
    ("y = x # a \u202eremark", "unexpected-character", "\u202e", "U+202E"),
    ("y = x # a \0remark", "nul-byte", "\0", "NUL"),
    ("y = {a}", "unexpected-character", "{", "numbered name"),
    ("y = x {a}", "unexpected-character", "{", "no blank"),
    ("y = x{a{b}}", "unexpected-character", "{", "nest"),
    # numbers
    ("y = .5", "bad-number", ".5", "`0.5`"),
    ("y = 1. + 2", "bad-number", "1.", "`1.0`"),
    ("y = 2x", "bad-number", "2x", "decimal"),
    ("y = 2ab", "bad-number", "2ab", "`2 * ab`"),
    ("y = 0x1F", "bad-number", "0x1F", "decimal"),
    ("y = 1_000", "bad-number", "1_000", "decimal"),
    ("y = 1e", "bad-number", "1e", "decimal"),
    ("y = 1.2.3", "bad-number", "1.2.3", "decimal"),
    ("y = 007", "bad-number", "007", "`7`"),
    ("y = 1and 2", "bad-number", "1and", ""),
    ("y = x.0", "bad-number", "x.0", "`x[0]`"),
    ("y = x{2l}", "bad-number", "2l", "`2 * l`"),
    ("y = " + "9" * 61, "bad-number", "9" * 61, "61"),
    # brackets
    ("y = x[]", "empty-brackets", "[]", "bare name"),
    ("y = ()", "empty-brackets", "()", ""),
    ("y = x{}", "empty-brackets", "{}", "x{l}"),
    ("y = x{ }", "empty-brackets", "{ }", ""),
    ("y = (a + b", "unclosed-bracket", "(", "`)`"),
    ("y = f(a, x[t\n    z = y", "unclosed-bracket", "[", "`]`"),
    ("y = f(a\n    z = g(y))", "unclosed-bracket", "(", "`)`"),
    ("y = x{l", "unclosed-bracket", "{", "one word"),
    ("y = x{(1}", "unclosed-bracket", "(", "`)`"),
    ("y = x{l # }", "unclosed-bracket", "{", "one word"),
    ("y = a + b)", "unmatched-bracket", ")", "closes nothing"),
    ("y = x}", "unmatched-bracket", "}", "closes nothing"),
    ("y = (a]", "unmatched-bracket", "]", "`)`"),
    ("y = |t", "unexpected-end", "", "`|`"),
    # tokens
    ("y = a b", "unexpected-token", "b", "`*`"),
    ("y = 2 (x)", "unexpected-token", "(", "`*`"),
    ("y = x ** 2", "unexpected-token", "**", "`^`"),
    ("y = x || z", "unexpected-token", "||", "`or`"),
    ("y = x <> z", "unexpected-token", "<>", "`!=`"),
    ("y = x // half of x", "unexpected-token", "of", "`#`"),
    ("y = a + not b", "unexpected-token", "not", "(not b)"),
    ("y = a and or b", "unexpected-token", "or", "an expression"),
    ("y = f(a,)", "unexpected-token", ")", "an expression"),
    ("y = [x]", "unexpected-token", "[", "an expression"),
    ("y = a..b", "unexpected-token", "..", "an operator"),
    ("= x", "unexpected-token", "=", "a statement"),
    ("y, = x", "unexpected-token", "=", "a name"),
    ("index s of t", "unexpected-token", "of", "`over`"),
    ("for l in 0 to 3:\n        y = x", "unexpected-token", "to", "`..`"),
    ("y = x{l l}", "unexpected-token", "l", "an operator"),
    ("y = a +", "unexpected-end", "", "an expression"),
    ("y", "unexpected-end", "", "`=`"),
    ("y =", "unexpected-end", "", "an expression"),
    ("y = x{1 +}", "unexpected-end", "", "braces"),
    ("index s", "unexpected-end", "", "`over`"),
    # layout
    ("y = x\n        z = y", "unexpected-indent", "z", "deeper"),
    ("y = x\n        claim causal", "unexpected-indent", "        ", "deeper"),
    ("y = x\n  z = y", "bad-dedent", "  ", "align"),
    ("for l in 0..2:\n        y = x\n      z = y", "bad-dedent", "      ", "align"),
    ("y = x\n\tz = y", "mixed-indentation", "\t", "tabs"),
    ("for l in 0..2:\n    \ty = x", "mixed-indentation", "    \t", "tabs"),
    ("for l in 0..2:\n    y = x", "missing-block", ":", "indent"),
    ("for l in 0..2: y = x", "missing-block", "y", "new line"),
    ("for l in 0..2\n        y = x", "missing-colon", "", "`:`"),
    ("mixer g(x) -> y:\n        y = x", "nested-declaration", "mixer", "margin"),
    ("import a from b", "nested-declaration", "import", "margin"),
]


@pytest.mark.parametrize("line, code, under, said", LINES)
def test_lines_of_a_mixer(line: str, code: str, under: str, said: str) -> None:
    check(f"{HEADER}{line}\n", code, under, said)
    check(f"import a from b\n\n{HEADER}z = x\n    {line}".replace("\n", "\r\n"), code, under, said)


TEXTS = [
    ("mixer f(x[t]):\n    y = x", "missing-arrow", ":", "->"),
    ("mixer f(x[t])\n    y = x", "missing-arrow", "", "->"),
    ("mixer f(x[t])", "missing-arrow", "", "->"),
    ("fn f(x):\n    y = x", "missing-arrow", ":", "= expression"),
    ("mixer f(x[t]) -> y[t]\n    y = x", "missing-colon", "", ":"),
    ("mixer f(x[t]) -> y[t]", "missing-colon", "", ":"),
    ("mixer f(x[t]) -> y[t]: int:\n    y = x", "type-on-output", "int", "leave out"),
    ("mixer f(x[t]) -> y[t]: float:\n    y = x", "type-on-output", "float", "leave out"),
    ("mixer f(x[t]) -> y[t]: int, z:\n    y = x", "type-on-output", "int", "leave out"),
    ("mixer f(x[t]) -> y[t]: y = x", "missing-block", "y", "new line"),
    ("mixer f(x) -> y:", "missing-block", ":", "indent"),
    ("mixer f(x) -> y:\n    # nothing\nfn g(x) = x", "missing-block", ":", "indent"),
    ("mixer f(x[t]: float) -> y:\n    y = x", "unknown-type", "float", "real by default"),
    ("mixer f(x[0]) -> y:\n    y = x", "not-an-index", "0", "name the index"),
    ("mixer f(x[t-1]) -> y:\n    y = x", "not-an-index", "-", "declare"),
    ("mixer f(x[-1]) -> y:\n    y = x", "not-an-index", "-", "name the index"),
    ("mixer f(x) -> y[|t|]:\n    y = x", "not-an-index", "|", ""),
    ("mixer f(x, N = 3) -> y:\n    y = x", "setting-before-semicolon", "N", "options"),
    ("mixer sum(x) -> y:\n    y = x", "keyword-as-name", "sum", ""),
    ("mixer f(in[t]) -> y:\n    y = x", "keyword-as-name", "in", ""),
    ("mixer f(x -> y:\n    y = x", "unclosed-bracket", "(", ""),
    ("mixer f[x] -> y:\n    y = x", "unexpected-token", "[", "`(`"),
    ("mixer f(x) -> :\n    y = x", "unexpected-token", ":", "a name"),
    ("mixer (x) -> y:\n    y = x", "unexpected-token", "(", "a name"),
    ("mixer", "unexpected-end", "", "a name"),
    ("fn f(x) =", "unexpected-end", "", "an expression"),
    ("y = x", "statement-outside", "y", "indented"),
    ("param w = 1", "statement-outside", "param", "indented"),
    ("def f(x):\n    y", "unknown-statement", "def", "fn"),
    ("mixer f(x) -> y:\n    y = x\nclaim causal", "statement-outside", "claim", "indented"),
    ("mixer f(x) -> y:\n\ty = x\n    z = x", "mixed-indentation", "    ", ""),
    ("  mixer f(x) -> y:\n    y = x\nfn g(x) = x", "bad-dedent", "fn", ""),
    ("fn f(x) = x\n    fn g(x) = x", "unexpected-indent", "    ", "deeper"),
    ("import a", "unexpected-end", "", "`from`"),
    ("import a from b.c", "import-path", ".", "library"),
    ("import a from ../b", "import-path", "..", "path"),
    ("import a from b/c", "import-path", "/", "path"),
    ("from a import b", "unexpected-token", "from", "import gla"),
    ("import * from b", "unexpected-token", "*", "a name"),
    ("import a, from b", "keyword-as-name", "from", ""),
    # monoids, rule 34
    (MONOID + "identity = (0)", "missing-combine", "m", "combine(a, b):"),
    (MONOID + COMBINE + COMBINE, "duplicate-member", "combine", ""),
    (MONOID + COMBINE + "identity = (0)\n    identity = (1)", "duplicate-member", "identity", ""),
    (MONOID + "zero = (0)", "unknown-member", "zero", "identity"),
    (MONOID + "x[e] = 1", "unknown-member", "x", "combine(a, b):"),
    (MONOID + "index s over t", "unknown-member", "index", "combine(a, b):"),
    (MONOID + "combine(a):\n        x = a.x", "malformed-member", "combine", ""),
    (MONOID + "combine(a[t], b):\n        x = a.x", "malformed-member", "combine", ""),
    (MONOID + "combine(a, b) = a.x", "malformed-member", "combine", ""),
    (MONOID + "lift(a):\n        x = a", "malformed-member", "lift", ""),
    (MONOID + "identity -> y:\n        y = a", "malformed-member", "identity", ""),
    (MONOID + "project -> y, z:\n        y = a", "malformed-member", "project", ""),
    (MONOID + "project = 1", "malformed-member", "project", ""),
    ("monoid m(x):", "missing-block", ":", ""),
    ("monoid m(x)\n    identity = 0", "missing-colon", "", ""),
]


@pytest.mark.parametrize("text, code, under, said", TEXTS)
def test_texts(text: str, code: str, under: str, said: str) -> None:
    check(text, code, under, said)


def test_one_fault_for_each_declaration() -> None:
    found = faults(f"{HEADER}y = a b\n    y = c d\n\nfn g(x) = x\n\nfn h(x) = x +\nimport a\n")
    assert [(fault.code, fault.span.line if fault.span else 0) for fault in found] == [
        ("unexpected-token", 2), ("unexpected-end", 7), ("unexpected-end", 8)]


def test_all_stray_characters_at_once() -> None:
    found = faults(f"{HEADER}y = α × β # γ is fine here\n    z = \"a\"\n")
    assert [fault.span.text if fault.span else "" for fault in found] == ["α", "×", "β", '"a"']


def test_several_faults_of_layout() -> None:
    found = faults(f"{HEADER}y = (a\n    param w = 1\n  z = y\nmixer g(x) -> y:\n")
    assert [fault.code for fault in found] == ["unclosed-bracket", "bad-dedent", "missing-block"]


def test_the_message_cites_the_line() -> None:
    with pytest.raises(SeqError) as caught:
        parse_text(f"{HEADER}y = a / sum[s] b * c\n", "gla.seq")
    assert str(caught.value) == """\
error[sum-after-division]: `*` after a division by a sum: does it belong to the sum?
 --> gla.seq:2:22
  |
2 |     y = a / sum[s] b * c
  |                      ^ nothing may follow in this product
  = help: parenthesise: `(a / sum[s] b) * c`, or `a / (sum[s] b * c)`"""
