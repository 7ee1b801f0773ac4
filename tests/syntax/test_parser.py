"""What the parser accepts: the corpus, the examples of the language's definition, and the tree of each construct."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from seqdsl.syntax import parse, parse_text, read_source, tree
from seqdsl.syntax.tree import Expr, NewIndex

CORPUS = sorted((Path(__file__).resolve().parent.parent / "corpus").glob("*.seq"))
HEADER = "mixer f(x[t,c]; N = 3) -> y[t,c]:\n    "


def value(text: str) -> Expr:
    """The right side of an equation."""
    (item,) = parse_text(f"{HEADER}y = {text}\n").items
    assert isinstance(item, tree.Mixer)
    (equation,) = item.body
    assert isinstance(equation, tree.Equation)
    return equation.value


def statement(text: str) -> tree.Statement:
    (item,) = parse_text(f"{HEADER}{text}\n").items
    assert isinstance(item, tree.Mixer)
    return item.body[0]


def shape(node: Expr | NewIndex) -> str:
    """An expression with all its parentheses."""
    match node:
        case tree.Number():
            return node.text
        case tree.Name():
            return "".join(part if isinstance(part, str) else f"{{{shape(part)}}}" for part in node.parts)
        case tree.SizeOf():
            return f"|{shape(node.name)}|"
        case tree.Field():
            return f"{shape(node.owner)}.{shape(node.name)}"
        case tree.Unary():
            return f"({node.op} {shape(node.arg)})"
        case tree.Binary():
            return f"({shape(node.left)} {node.op} {shape(node.right)})"
        case tree.Compare():
            rest = [f" {op} {shape(arg)}" for op, arg in zip(node.ops, node.args[1:], strict=True)]
            return f"({shape(node.args[0])}{''.join(rest)})"
        case tree.Tuple():
            return f"<{', '.join(map(shape, node.items))}>"
        case tree.Read():
            return shape(node.tensor) + brackets(node.brackets)
        case tree.Reduction():
            return f"({node.op}{brackets(node.brackets)} {shape(node.body)})"
        case tree.Call():
            settings = "".join(f"; {shape(s.name)} = {shape(s.value)}" for s in node.settings)
            inside = ", ".join(map(shape, node.args)) + settings
            return shape(node.function) + (brackets(node.brackets) if node.brackets else "") + f"({inside})"
        case NewIndex():
            return f"{shape(node.name)}: {shape(node.size)}"


def brackets(node: tree.Brackets) -> str:
    made = "" if node.made is None else f" -> {', '.join(map(shape, node.made))}"
    guard = "" if node.guard is None else f" | {shape(node.guard)}"
    return f"[{', '.join(map(shape, node.items))}{made}{guard}]"


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_parses(path: Path) -> None:
    module = parse(read_source(path))
    assert module.items
    assert module.items[0].span.source.name == str(path)


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) >= 59


# (rule of LANGUAGE.md, expression, its tree)
EXPRESSIONS = [
    (2, "S[t-1]", "S[(t - 1)]"),
    (2, "P[N-1] + k[t,0]", "(P[(N - 1)] + k[t, 0])"),
    (3, "2^(-8 * (h + 1) / |h|) * (t - s)", "((2 ^ (((- 8) * (h + 1)) / |h|)) * (t - s))"),
    (4, "C / sum[s] C", "(C / (sum[s] C))"),
    (4, "softmax[s](a)", "softmax[s](a)"),
    (6, "q[row, col] * k[row[a,p2], col[b,r2]]", "(q[row, col] * k[row[a, p2], col[b, r2]])"),
    (8, "ceil(|c| / 16)", "ceil((|c| / 16))"),
    (9, "(|i| + w - 1) // w", "(((|i| + w) - 1) // w)"),
    (10, "max[j: 3 | j <= t](x[t-j])", "max[j: 3 | (j <= t)](x[(t - j)])"),
    (11, "softmax[s | t - W < s <= t](a)", "softmax[s | ((t - W) < s <= t)](a)"),
    (11, "sum[a | dst == n] v", "(sum[a | (dst == n)] v)"),
    (11, "sum[a | gone and best == b or not z] v", "(sum[a | ((gone and (best == b)) or (not z))] v)"),
    (13, "sum[d] q * k / sqrt(|d|) + 1", "((sum[d] ((q * k) / sqrt(|d|))) + 1)"),
    (13, "a * sum[d] q // 2 % 3 ^ 4", "(a * (sum[d] ((q // 2) % (3 ^ 4))))"),
    (13, "a / sum[s] b", "(a / (sum[s] b))"),
    (13, "a / sum[s] b^2 + c", "((a / (sum[s] (b ^ 2))) + c)"),
    (13, "a // sum[s] -b - c", "((a // (sum[s] (- b))) - c)"),
    (13, "a % -sum[s] b", "(a % (- (sum[s] b)))"),
    (13, "(a / sum[s] b) * c", "((a / (sum[s] b)) * c)"),
    (13, "-sum[d] x * y", "(- (sum[d] (x * y)))"),
    (13, "a * -sum[d] x", "(a * (- (sum[d] x)))"),
    (13, "sum[d] sum[e] x * y", "(sum[d] (sum[e] (x * y)))"),
    (13, "sum[s] a / sum[s] b", "(sum[s] (a / (sum[s] b)))"),
    (13, "mean[j: B] k[m*B + j]", "(mean[j: B] k[((m * B) + j)])"),
    (13, "sum[d] x <= sum[d] y", "((sum[d] x) <= (sum[d] y))"),
    (13, "sum[s] p and sum[s] q or r", "(((sum[s] p) and (sum[s] q)) or r)"),
    (13, "summary + means + summ[t]", "((summary + means) + summ[t])"),
    (14, "softmax[p2,r2](z)", "softmax[p2, r2](z)"),
    (14, "argmax[u,v](n)", "argmax[u, v](n)"),
    (15, "softmax[s | rank[s](a) < n](a)", "softmax[s | (rank[s](a) < n)](a)"),
    (16, "rfft[j -> f](x)", "rfft[j -> f](x)"),
    (16, "solve[d -> f](A, b)", "solve[d -> f](A, b)"),
    (16, "linear[c -> h, d](x)", "linear[c -> h, d](x)"),
    (16, "linear[c -> f: F](x; bias = true)", "linear[c -> f: F](x; bias = true)"),
    (17, "where(b, x, y)", "where(b, x, y)"),
    (18, "S[t,|j|-1] + W[t // m * m - 1]", "(S[t, (|j| - 1)] + W[(((t // m) * m) - 1)])"),
    (23, "attention(q, k, v; t = j, s = j)", "attention(q, k, v; t = j; s = j)"),
    (24, "gla(k[s,d])", "gla(k[s, d])"),
    (27, "grad[W](loss(W[t-1], k, v))", "grad[W](loss(W[(t - 1)], k, v))"),
    (28, "x[l-1] + GLA(rms_norm[c](x[l-1]); per = l)", "(x[(l - 1)] + GLA(rms_norm[c](x[(l - 1)]); per = l))"),
    (28, "x{l+1}a[g] * x{L}", "(x{(l + 1)}a[g] * x{L})"),
    (28, "f{l}_{k}(x{ 2 * l })", "f{l}_{k}(x{(2 * l)})"),
    (29, "orthogonal()", "orthogonal()"),
    (29, "f(; n = 3)", "f(; n = 3)"),
    (30, "linear[a: 3, b: 3, c](x[i+a-1, j+b-1])", "linear[a: 3, b: 3, c](x[((i + a) - 1), ((j + b) - 1)])"),
    (31, "-7 % 3", "((- 7) % 3)"),
    (31, "-x^2", "(- (x ^ 2))"),
    (31, "2^-x^2", "(2 ^ (- (x ^ 2)))"),
    (31, "a^b^c", "(a ^ (b ^ c))"),
    (31, "a - b - c", "((a - b) - c)"),
    (31, "a / b * c", "((a / b) * c)"),
    (31, "--a", "(- (- a))"),
    (31, "not not a", "(not (not a))"),
    (32, "1i * 0.5 + 1e-6 - 2.5e+3i", "(((1i * 0.5) + 1e-6) - 2.5e+3i)"),
    (32, "0 <= row < |i| and 0 <= col != 2", "((0 <= row < |i|) and (0 <= col != 2))"),
    (33, "round(x; grad = identity)", "round(x; grad = identity)"),
    (34, "softmax_sum[s | s <= t](a[s], v[s])", "softmax_sum[s | (s <= t)](a[s], v[s])"),
    (34, "a.m[i] + a.m", "(a.m[i] + a.m)"),
    (37, "forget + index2 + iff + inside + or_ + per2 + int8",
     "((((((forget + index2) + iff) + inside) + or_) + per2) + int8)"),
]


@pytest.mark.parametrize("text, expected", [(text, expected) for _, text, expected in EXPRESSIONS])
def test_expressions(text: str, expected: str) -> None:
    assert shape(value(text)) == expected
    assert value(text).span.text == text


@pytest.mark.parametrize("text", [
    "S[t,h,d] = 1", "S[-1,h] = -inf", "b[|t|,n] = b0", "S[t,-1] = a", "x[0] = 1", "best[] = 2", "y = x",
    "lo, hi = haar(x)", "x[l: L, t, c] = 1", "q[t, h: H, d: D] = linear[c](x)", "x{0} = x", "x{l+1}[t,c] = x{l}",
    "gate{l}[i, f{l}: 2^l] = dw",
    "index s over t", "index p2 over p, r2 over r", "param w", "param w[j: W, c]", "param C[c,n]: complex",
    "param w[j: W, c] = normal(0, 1)", "param C[c,n]: complex = normal(0, 1)", "const a[n] = n",
    "param w[r: 2] = (1, 2)",
    "const rho[r: 4] = (1/2, 2/3, 3/4, 4/5)", "claim causal", "claim causal(i), shift(i, w)",
    "claim rows_sum_to_one(p, s)", "claim doubly_stochastic(p, t, s)", "claim o == delta_rule(q, k, v, eta)",
    "claim cost(o) <= |t| * |d| * |e|", "claim stable(S), linear(x) when 0 <= a <= 1 and b > 0",
    "for l in 0..n:\n        y = x", "for l in A+1..2*L:\n        for k in 0..l:\n            y{l}{k} = x",
])
def test_statements(text: str) -> None:
    assert statement(text).span.text == text


def test_a_condition_governs_the_whole_claim() -> None:
    claim = statement("claim stable(S), causal when g <= 0")
    assert isinstance(claim, tree.ClaimDecl)
    assert [shape(assertion) for assertion in claim.assertions] == ["stable(S)", "causal"]
    assert claim.condition is not None and shape(claim.condition) == "(g <= 0)"


def test_points_sizes_and_indices_of_a_left_side() -> None:
    equation = statement("S[t, -1, |j|, 0, h: H] = 1")
    assert isinstance(equation, tree.Equation) and equation.targets[0].indices is not None
    kinds = [type(entry).__name__ for entry in equation.targets[0].indices]
    assert kinds == ["Name", "Unary", "SizeOf", "Number", "NewIndex"]


def test_no_brackets_and_empty_brackets_differ() -> None:
    bare, empty = statement("y = x"), statement("y[] = x")
    assert isinstance(bare, tree.Equation) and isinstance(empty, tree.Equation)
    assert (bare.targets[0].indices, empty.targets[0].indices) == (None, ())


@pytest.mark.parametrize("text", [
    "import gla from gla", "import gla, GLA, softmax_sum from gla_2",
    "mixer f() -> y:\n    y = 1", "mixer f(; N) -> y:\n    y = N",
    "mixer f(x[t]; H = 4, D = |c|/2/H, E) -> y:\n    y = x",
    "mixer f(tokens[t]: int, m: bool, z[n]: complex, pos[i: m], w: real; m = 16) -> y[t, n: N], S:\n    y = x",
    "fn f(W[d,e], k[d]) = 0.5 * sum[e] (sum[d] k * W)^2", "fn f(x; slope = 0.2) -> y, z:\n    y = x\n    z = y",
    "mixer f(x[t],\n        z[t]\n) -> y:\n    y = x", "mixer f(x[t], z[t])\n    -> y[t]:\n    y = x",
    "import a,\n    b\n    from c",
])
def test_declarations(text: str) -> None:
    (item,) = parse_text(text).items
    assert item.span.text == text


MONOID = """
monoid softmax_sum(m, u, w[e]; N = 2):
    claim associative, commutative
    project -> y[e]:
        y[e] = w / u
    param W[e] = 1
    combine(a, b):
        m = max(a.m, b.m)
        w[e] = a.w[e] * exp(a.m - m)
    identity = (-inf, 0, 0)
    lift(z, v[e]) = (z, 1, v)
"""


def test_a_monoid_with_members_in_any_order() -> None:
    (monoid,) = parse_text(MONOID).items
    assert isinstance(monoid, tree.Monoid)
    assert [field.name.plain for field in monoid.fields] == ["m", "u", "w"]
    assert monoid.identity is not None and shape(monoid.identity) == "<(- inf), 0, 0>"
    assert monoid.lift is not None and shape(monoid.lift) == "<z, 1, v>"
    assert [p.name.plain for p in monoid.lift_params or ()] == ["z", "v"]
    assert [name.plain for name in monoid.combine_names] == ["a", "b"]
    assert len(monoid.combine) == 2 and len(monoid.project) == len(monoid.params) == len(monoid.claims) == 1
    assert monoid.project_output is not None and monoid.project_output.span.text == "y[e]"


def test_a_monoid_of_combine_alone() -> None:
    (monoid,) = parse_text("monoid m(x):\n    combine(a, b):\n        x = a.x - b.x").items
    assert isinstance(monoid, tree.Monoid)
    assert (monoid.identity, monoid.lift, monoid.lift_params, monoid.project_output) == (None, None, None, None)


@pytest.mark.parametrize("text", ["(0)", "0", "((0))"])
def test_an_identity_of_one_field_is_a_tuple(text: str) -> None:
    (monoid,) = parse_text(f"monoid m(x):\n    identity = {text}\n    combine(a, b):\n        x = a.x").items
    assert isinstance(monoid, tree.Monoid)
    assert monoid.identity == tree.Tuple((tree.Number("0", span=monoid.span),), span=monoid.span)


def test_parentheses_vanish_and_their_span_stays() -> None:
    product = value("(a + b) * (c)")
    assert isinstance(product, tree.Binary)
    assert product == value("((a + b)) * c")
    assert (product.left.span.text, product.right.span.text) == ("(a + b)", "(c)")


def test_spans_in_braces() -> None:
    name = value("x{l+1}a")
    assert isinstance(name, tree.Name) and isinstance(name.parts[1], tree.Binary)
    number = name.parts[1].right
    assert (number.span.text, number.span.line, number.span.column) == ("1", 2, 13)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n  \n"])
@pytest.mark.parametrize("indent", ["    ", "\t", " "])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_indentation(end: str, last: str, indent: str, mark: str) -> None:
    text = "\n# doc\nmixer f(x[t,\nc]) -> y[t]:\n~y[t] = where(x > 0,\n1,\n~~# remark\n  2)\n\n~z = y\n~~ + 1"
    text = mark + (text + last).replace("~", indent).replace("\n", end)
    module = parse_text(text)
    (mixer,) = module.items
    assert isinstance(mixer, tree.Mixer) and len(mixer.body) == 2
    last_equation = mixer.body[1]
    assert isinstance(last_equation, tree.Equation)
    assert shape(last_equation.value) == "(y + 1)"
    assert (last_equation.span.line, last_equation.span.column) == (10, 1 + len(indent))
    assert mixer.body[0].span.text.startswith("y[t] = where(x > 0,") and mixer.body[0].span.text.endswith("2)")
    assert mixer.doc == ("doc",)


def test_a_text_may_be_indented_as_a_whole() -> None:
    (one, two) = parse_text("\n    import a from b\n\n    mixer f(x) -> y:\n        y = x\n    ").items
    assert isinstance(one, tree.Import) and isinstance(two, tree.Mixer)


@pytest.mark.parametrize("text", ["", "\n", "  \n\t\n", "# only a comment", "\ufeff"])
def test_empty_texts(text: str) -> None:
    assert parse_text(text).items == ()


# The examples of DESIGN.md section 3 that the corpus does not hold in this form.
TASTE = """
mixer delta_rule(q[t,h,d], k[t,h,d], v[t,h,e], beta[t,h]) -> o[t,h,e]:
    r[t,h,e]   = sum[d] k * S[t-1]                   # what the memory now answers for this key
    S[t,h,d,e] = S[t-1] + beta * k * (v - r)
    o[t,h,e]   = sum[d] q * S

fn loss(W[d,e], k[d], v[e]) = 0.5 * sum[e] (sum[d] k * W - v)^2

mixer ttt_linear(q[t,h,d], k[t,h,d], v[t,h,e], eta[t,h]) -> o[t,h,e]:
    W[t,h,d,e] = W[t-1] - eta * grad[W](loss(W[t-1], k, v))  # the compiler differentiates
    o[t,h,e]   = sum[d] q * W
    claim o == delta_rule(q, k, v, eta)

mixer gru(x[t,c]; N) -> h[t,n]:                       # nonlinear: solved in parallel by Newton, or stepped
    z[t, n: N] = sigmoid(linear[c](x) + linear[n -> n](h[t-1]))
    r[t,n] = sigmoid(linear[c](x) + linear[n -> n](h[t-1]))
    u[t,n] = tanh(linear[c](x) + linear[n -> n](r * h[t-1]))
    h[t,n] = (1 - z) * h[t-1] + z * u

mixer sinkhorn(a[t,s]; N = 5) -> p[t,s]:              # an iteration is a recurrence over an axis of its own
    P[-1,t,s]     = exp(a)
    C[i: N, t, s] = P[i-1] / sum[t] P[i-1]
    P[i,t,s]      = C / sum[s] C
    p[t,s]        = P[N-1]

mixer Tiny(tokens[t]: int; V = 256, C = 128, L = 4) -> logits[t,w]:  # a stack is a recurrence over depth
    param E[w: V, c: C] = normal(0, 0.02)
    x[-1,t,c]      = E[tokens]
    x[l: L, t, c]  = x[l-1] + GLA(rms_norm[c](x[l-1]); per = l)
    logits[t,w]    = sum[c] rms_norm[c](x[L-1]) * E
"""


def test_the_taste_of_the_language() -> None:
    assert len(parse_text(TASTE).items) == 6


def test_a_long_file_parses_in_seconds() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in CORPUS) * 3
    assert text.count("\n") > 2700
    start = time.process_time()
    parse_text(text)
    assert time.process_time() - start < 6  # about 1.5 on an idle machine
