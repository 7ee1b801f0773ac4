"""Formatting: the same tree again, the same text again, every comment kept, and the canonical layout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqdsl.diagnostics import Source, Span
from seqdsl.syntax import format_module, parse, parse_text, read_source, tree

CORPUS = sorted((Path(__file__).resolve().parent.parent / "corpus").glob("*.seq"))
HEADER = "mixer f(x[t,c]) -> y[t,c]:\n"


def check(text: str) -> str:
    """Format a text, after which everything must hold that always holds."""
    module = parse_text(text)
    formatted = format_module(module)
    assert parse_text(formatted) == module
    assert format_module(parse_text(formatted)) == formatted
    assert sorted(comments(formatted)) == sorted(comments(text))
    assert not any(line != line.rstrip() or "\t" in line for line in formatted.split("\n"))
    return formatted


def comments(text: str) -> list[str]:
    return [found.lstrip("# ").rstrip() for found in re.findall("#[^\n]*", text)]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus(path: Path) -> None:
    formatted = check(read_source(path).text)
    assert max(map(len, formatted.splitlines())) <= 180  # 140, and a comment
    assert format_module(parse(read_source(path))) == formatted


def test_most_of_the_corpus_is_canonical() -> None:
    texts = [path.read_text(encoding="utf-8") for path in CORPUS]
    assert sum(format_module(parse_text(text)) == text for text in texts) >= len(texts) // 2


@pytest.mark.parametrize("given_text, expected", [
    ("y=x*2+sum [ d ] q*k", "y = x * 2 + sum[d] q * k"),
    ("y = x ^ 2 + 2^( - x )", "y = x^2 + 2^-x"),
    ("y = ((a)) * (b * c) + (d)", "y = a * (b * c) + d"),
    ("y = (a * b) * c - (d - e)", "y = a * b * c - (d - e)"),
    ("y = (a / (sum[s] b)) * c", "y = (a / sum[s] b) * c"),
    ("y = a / (sum[s] b * c)", "y = a / (sum[s] b * c)"),
    ("y = a * (sum[s] b * c)", "y = a * sum[s] b * c"),
    ("y = (sum[s] b) * c", "y = (sum[s] b) * c"),
    ("y = 2^(sum[s] b)", "y = 2^(sum[s] b)"),
    ("y = -(sum[s] b)", "y = -sum[s] b"),
    ("y = (-a)^2 - (-a^2)", "y = (-a)^2 - -a^2"),
    ("y = not (a and b) or (c or d)", "y = not (a and b) or (c or d)"),
    ("y = (a < b) == (c < d)", "y = (a < b) == (c < d)"),
    ("y = ( a - b < c <= d ) and e", "y = a - b < c <= d and e"),
    ("y[t , h:H,d : D] = q[ t,h , d ]", "y[t, h: H, d: D] = q[t,h,d]"),
    ("y = S[t - 1, |j| - 1] + S[t -1,0]", "y = S[t-1, |j|-1] + S[t-1,0]"),
    ("y = q[t, h*|g|//|h|] + W[t//m*m-1]", "y = q[t, h * |g| // |h|] + W[t // m * m - 1]"),
    ("y = linear[c->h,d:D]( x;bias=true , per=l )", "y = linear[c -> h, d: D](x; bias = true, per = l)"),
    ("y = softmax[ s,r|s<=t ](f( ))", "y = softmax[s,r | s <= t](f())"),
    ("y = x{ l+1 }a + x{l}", "y = x{l+1}a + x{l}"),
    ("claim a ,b(i) when c", "claim a, b(i) when c"),
    ("index  s over t,r over t", "index s over t, r over t"),
    ("param w [c] : complex=1", "param w[c]: complex = 1"),
    ("const r[i: 2] = (1/2,-1)", "const r[i: 2] = (1/2, -1)"),
    ("for l in 0 .. N - 1 :\n        y = x", "for l in 0..N-1:\n        y = x"),
])
def test_statements(given_text: str, expected: str) -> None:
    assert check(f"{HEADER}    {given_text}\n") == f"{HEADER}    {expected}\n"


@pytest.mark.parametrize("text, expected", [
    ("mixer f( x[ t ]:int , y ;N=4,D=|c| / N,E )->y[t] ,z :\n y=x",
     "mixer f(x[t]: int, y; N = 4, D = |c|/N, E) -> y[t], z:\n    y = x\n"),
    ("fn f(x)=x+1", "fn f(x) = x + 1\n"),
    ("fn f( ; N )->y:\n\ty=N", "fn f(; N) -> y:\n    y = N\n"),
    ("import a ,b\n from c\nimport d from e\nfn f(x)=x", "import a, b from c\nimport d from e\n\nfn f(x) = x\n"),
    ("monoid m(x):\n  combine(a,b):\n    x=a.x\n  lift(z)=z\n  identity=0",
     "monoid m(x):\n    identity = (0)\n    lift(z) = (z)\n    combine(a, b):\n        x = a.x\n"),
    ("", ""), ("\n\n", ""), ("# only", "# only\n"),
])
def test_declarations(text: str, expected: str) -> None:
    assert check(text) == expected


def test_equations_are_aligned_in_runs() -> None:
    assert check(HEADER + """
    param w = 1
    param bias[c] = 2
    S[t,h,d,e] = x
    y = S

    z = y
    claim causal
    r[t] = z
    very_long_left_side[t,h,d,e,f,g] = r
""") == HEADER + """    param w       = 1
    param bias[c] = 2
    S[t,h,d,e] = x
    y          = S

    z = y
    claim causal
    r[t] = z
    very_long_left_side[t,h,d,e,f,g] = r
"""


def test_comments_keep_their_places() -> None:
    text = """# header of the file

# doc 1
#
# doc 2
import a from b                                       # beside an import

# doc of f
mixer f(x[t]) -> y[t]:                                # beside a header
    # above y
    # more above y
    y[t] = x                                          # beside y
    z    = y                                          # beside z
    for l in 0..2:                                    # beside for
        # above a
        a = z
        # below a
    # below for
    claim causal                                      # beside claim
    # below claim

#! doc of m
#  indented
monoid m(x):
    # above identity
    identity = (0)                                    # beside identity
    combine(a, b):                                    # beside combine
        x = a.x                                       # beside x
        # below x
    # above claim
    claim associative

# trailing 1

# trailing 2
"""
    assert check(text) == text


@pytest.mark.parametrize("text", [
    "fn f(x) = where(x, # one\n  1, # two\n  # three\n  2) # four\n",
    "mixer f(x, # one\n z) -> y: # two\n    y = x\n     + 1 # three\n      # four\n   # five\n  # six\n # seven\n"
    "# eight",
    "mixer f(x) -> y:\n    # one\n# two\n        # three\n    y = x\n# four\n    z = x\n        # five\n",
    "mixer f(x) -> y:\n    for l in 0..1:\n        y = x\n  # one\n    # two\n        # three\nfn g(x) = x\n",
    "# one\n\n\n# two\n\nfn f(x) = x # three\n# four\n\n# five\nfn g(x) = x\n\n# six",
    "monoid m(x): # one\n    # two\n    combine(a, b): # three\n        x = a.x # four\n    # five\n"
    "    project -> y: # six\n        y = x\n    # seven\n# eight\n",
    "    fn f(x) = x # one\n    # two\n    fn g(x) = x\n        # three\n",
    "#\n#!shebang\n##\n#no blank\nfn f(x) = x #\n",
])
def test_no_comment_is_lost(text: str) -> None:
    check(text)


REMARKS = st.lists(st.tuples(st.integers(0, 99), st.sampled_from([0, 0, 2, 4, 4, 6, 8, 12]), st.integers(0, 3)),
                   max_size=8)


@given(st.sampled_from(CORPUS), REMARKS)
def test_comments_and_empty_lines_anywhere(path: Path, remarks: list[tuple[int, int, int]]) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, (at, indent, kind) in enumerate(remarks):
        at %= len(lines)
        if kind == 3 and "#" not in lines[at]:
            lines[at] += f"  # beside {number}"
        lines[at:at] = [""] if kind == 0 else [" " * indent + f"# remark {number}"] if kind < 3 else []
    check("\n".join(lines))


NASTY = """# top

# doc {x} \\N{DASH} \\
mixer f( x[ t , c ]:complex ,
   # inside header
   k[t] ; N=4 , # after N
   M = ( N + 1 ) * 2 ) -> y[t,c] , # after y
      z :   # after colon
  # first in body
  for l in 0 .. N : # loop
        # in loop
        u{ l + 1 }_{l}[t,c]=x   # eq
        # end of loop
  y[t,c] = ( x
     # middle
     + u1_0 ) * - ( - 2 ) ^ - 3 ^ 2 - - 1
       # trailing deeper
  z[] = sum [ t , c | not ( t < 3 and c > 2 or t == 1 ) ] re ( x ) / ( sum[t] 1.0 * k )
  claim causal , y == y when k > 0 # claimed
# after the body
"""


def test_a_nasty_text() -> None:
    assert "    y[t,c] = (x + u1_0) * -(-2)^-3^2 - -1\n" in check(NASTY)
    assert "    for l in 0..N:" in check(NASTY.replace("\n", "\r\n"))


def test_comments_belong_to_lines() -> None:
    (mixer,) = parse_text("# title\n# more\nmixer f(x) -> y: # why\n    # above\n    y = x # beside\n").items
    assert isinstance(mixer, tree.Mixer)
    assert mixer.doc == ("title", "more", "why")
    assert isinstance(mixer.body[0], tree.Equation) and mixer.body[0].comments == ("above", "beside")


def test_long_lines_are_broken_deeper() -> None:
    terms = " + ".join(f"weight_{i} * some_function(argument_{i}, x[t-{i}])" for i in range(12))
    formatted = check(f"{HEADER}    y = {terms}  # why\n")
    lines = formatted.splitlines()
    assert max(len(line.partition(" #")[0]) for line in lines) <= 140
    assert all(line.startswith(" " * 12 + "+ ") for line in lines[2:])
    check(f"mixer f({', '.join(f'argument_{i}[t,h,d]: complex' for i in range(30))}) -> y:\n    y = 1\n")
    check(f"{HEADER}    y = f({'x' * 128}, {'z' * 128})\n")


# Trees that no text was written for ----------------------------------------------------------------------------------

SPAN = Span(Source("<tree>", ""), 0, 0, 1, 1)
LETTERS = st.sampled_from(["a", "b", "t", "s", "x", "S"]).map(lambda text: tree.Name((text,), span=SPAN))
NUMBERED = st.builds(lambda e: tree.Name(("x", e, "a"), span=SPAN), LETTERS)
NAMES = LETTERS | NUMBERED
ATOMS = (NAMES | st.sampled_from(["1", "0.5", "1e-6", "2i"]).map(lambda text: tree.Number(text, span=SPAN))
         | st.builds(lambda n: tree.SizeOf(n, span=SPAN), NAMES)
         | st.builds(lambda a, b: tree.Field(a, b, span=SPAN), NAMES, NAMES))


def compounds(inner: st.SearchStrategy[tree.Expr]) -> st.SearchStrategy[tree.Expr]:
    few = st.lists(inner, min_size=1, max_size=3).map(tuple)
    new = st.builds(lambda n, e: tree.NewIndex(n, e, span=SPAN), NAMES, inner)
    binders = st.lists(NAMES | new, min_size=1, max_size=2).map(tuple)
    plain = st.builds(lambda items: tree.Brackets(items, span=SPAN), few)
    full = st.builds(lambda items, made, guard: tree.Brackets(items, made, guard, span=SPAN), binders,
                     st.none() | binders, st.none() | inner)
    setting = st.builds(lambda n, e: tree.Setting(n, e, span=SPAN), NAMES, inner)
    return (
        st.builds(lambda op, a: tree.Unary(op, a, span=SPAN), st.sampled_from(["-", "-", "not"]), inner)
        | st.builds(lambda op, a, b: tree.Binary(op, a, b, span=SPAN),
                    st.sampled_from("+ - * / // % ^ and or".split()), inner, inner)
        | st.lists(inner, min_size=2, max_size=3).flatmap(lambda args: st.lists(
            st.sampled_from("< <= == != > >=".split()), min_size=len(args) - 1, max_size=len(args) - 1).map(
                lambda ops: tree.Compare(tuple(ops), tuple(args), span=SPAN)))
        | st.builds(lambda n, b: tree.Read(n, b, span=SPAN), NAMES, plain)
        | st.builds(lambda op, b, e: tree.Reduction(op, b, e, span=SPAN), st.sampled_from(["sum", "mean"]), full, inner)
        | st.builds(lambda n, b, a, s: tree.Call(n, b, a, s, span=SPAN), NAMES, st.none() | full,
                    st.lists(inner, max_size=2).map(tuple), st.lists(setting, max_size=2).map(tuple))
    )


EXPRESSIONS = st.recursive(ATOMS, compounds, max_leaves=12)


@given(st.lists(EXPRESSIONS, min_size=1, max_size=3))
def test_every_tree_survives(values: list[tree.Expr]) -> None:
    target = tree.Target(tree.Name(("y",), span=SPAN), None, span=SPAN)
    body = tuple(tree.Equation((target,), value, span=SPAN) for value in values)
    name = tree.Name(("f",), span=SPAN)
    output = tree.Output(name, None, span=SPAN)
    module = tree.Module((tree.Mixer(name, (), (), (output,), body, span=SPAN),), span=SPAN)
    formatted = format_module(module)
    assert parse_text(formatted) == module
    assert format_module(parse_text(formatted)) == formatted
