"""Texts from strangers: each is lowered, or refused by `SeqError` (sizes at run time: `SizeError`), soon."""

from __future__ import annotations

import keyword
import random
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqdsl.diagnostics import SeqError
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.sizes import SizeError
from seqdsl.semantics import load_file, load_system, lower_mixer, mixers
from seqdsl.syntax.parser import automaton

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
HEADER = "mixer f(x[t,c]) -> y[t,c]:\n    "


def code_of(text: str) -> str:
    """The code of the first fault of a text's mixers; nothing where all lower."""
    try:
        file = load_file(text)
        for mixer in mixers(file):
            system = lower_mixer(file, mixer)
            assert all(repr(tensor.rhs) for tensor in system.derived())
    except SeqError as error:
        assert str(error) and all(d.message for d in error.diagnostics)
        return error.code
    return ""


def calls(number: int, body: str) -> str:
    """A chain of functions, each of which calls the one before as `body` says."""
    head = f"mixer f(x[t]) -> y[t]:\n    y[t] = f{number}(x)\n\nfn f0(x) = x\n"
    return head + "".join(f"fn f{k + 1}(x) = {body.format(f'f{k}(x)')}\n" for k in range(number))


def doubling(number: int) -> str:
    blocks = "".join(
        f"mixer f{k + 1}(x[t]) -> y[t]:\n    a = f{k}(x)\n    b = f{k}(x)\n    y[t] = a + b\n\n" for k in range(number)
    )
    return f"mixer f(x[t]) -> y[t]:\n    y = f{number}(x)\n\nmixer f0(x[t]) -> y[t]:\n    y = x\n\n{blocks}"


HUGE = "1" + "0" * 30
HOSTILE = {
    "recursion": (HEADER + "y = f(x)\n", "recursive-call"),
    "mutual recursion": (HEADER + "y = g(x)\n\nmixer g(x[t,c]) -> y[t,c]:\n    y = f(x)\n", "recursive-call"),
    "recursion of a fn": ("fn g(x) = g(x)\n\n" + HEADER + "y[t,c] = g(x)\n", "recursive-call"),
    "recursion in an argument": ("fn g(x) = 2 * x\n\n" + HEADER + "y[t,c] = g(g(g(x)))\n", ""),
    "recursion of a monoid": (
        "monoid m(a):\n    combine(p, q):\n        a = p.a + m[t](q.a)\n\nmixer f(x[t]) -> y:\n    y[] = m[t](x)\n",
        "any",
    ),
    "many levels of calls": (calls(60, "1 + {} / 2"), "too-deep"),
    "some levels of calls": (calls(30, "1 + {} / 2"), ""),
    "calls that double": (calls(30, "{0} + {0}"), "too-many-equations"),
    "mixers that double": (doubling(30), "too-many-equations"),
    "an axis of its own size": (HEADER + "a[n: |n|] = 1\n    y[t,c] = x + a[0]\n", "bad-size"),
    "many iterations": (HEADER + "for i in 0..3000:\n        z{i}[t,c] = x\n    y[t,c] = x\n", "too-many-iterations"),
    "nested iterations": (
        HEADER + "for i in 0..99:\n        for j in 0..99:\n            z{i}a{j}[t,c] = x\n    y[t,c] = x\n",
        "too-many-iterations",
    ),
    "a long loop body": (
        HEADER
        + "for i in 0..900:\n"
        + "".join(f"        z{k}a{{i}}[t,c] = x\n" for k in range(900))
        + "    y[t,c] = x\n",
        "too-many-equations",
    ),
    "a loop that runs backwards": (HEADER + "for i in 5..0:\n        z{i}[t,c] = x\n    y[t,c] = x\n", ""),
    "an endless bound": (
        HEADER + f"for i in 0..{HUGE}:\n        z{{i}}[t,c] = x\n    y[t,c] = x\n",
        "too-many-iterations",
    ),
    "duplicate inputs": ("mixer f(x[t], x[t]) -> y[t]:\n    y[t] = x\n", "name-clash"),
    "duplicate options": ("mixer f(x[t]; N = 1, N = 2) -> y[t]:\n    y[t] = x\n", "name-clash"),
    "duplicate mixers": (HEADER + "y[t,c] = x\n\n" + HEADER + "y[t,c] = x\n", "duplicate-definition"),
    "duplicate params": (HEADER + "param w[c]\n    param w[c]\n    y[t,c] = x * w\n", "duplicate-definition"),
    "an input that is defined": (HEADER + "x[t,c] = 1\n    y[t,c] = x\n", "duplicate-definition"),
    "a param that is defined": (HEADER + "param w[c]\n    w[c] = 1\n    y[t,c] = x * w\n", "duplicate-definition"),
    "an index like its mixer": ("mixer t(x[t]) -> y[t]:\n    y[t] = x\n", ""),
    "a mixer like a function": ("mixer exp(x[t]) -> y[t]:\n    y[t] = x\n", "name-clash"),
    "a size of 10^30": (HEADER + f"a[n: {HUGE}] = 1\n    y[t,c] = x\n", "size-too-large"),
    "a subscript of 10^30": (HEADER + f"y[t,c] = x[t - {HUGE}]\n", "any"),
    "a number without float64": (HEADER + "y[t,c] = 1" + "0" * 400 + " * x\n", "bad-number"),
    "a size that is zero": (HEADER + "a[n: 0] = 1\n    y[t,c] = x + sum[n] a\n", "bad-size"),
    "a division by zero": (HEADER + "a[n: 4 // 0] = 1\n    y[t,c] = x\n", "division-by-zero"),
    "2000 terms": (HEADER + "y[t,c] = x" + " + x" * 2000 + "\n", "too-deep"),
    "90 terms": (HEADER + "y[t,c] = x" + " + x[t-1]" * 90 + "\n", ""),
    "2000 operands": (HEADER + "y[t,c] = max(" + ", ".join(["x"] * 2000) + ")\n", "too-deep"),
    "a chain of 2000": (HEADER + "y[t,c] = where(" + " < ".join(["x"] * 2000) + ", 1, 0)\n", "too-deep"),
    "2000 values": (HEADER + "const w[n: 2000] = (" + "1, " * 1999 + "1)\n    y[t,c] = x + sum[n] w\n", ""),
    "3000 equations": (
        HEADER
        + "z0[t,c] = x\n"
        + "".join(f"    z{k + 1}[t,c] = z{k} + 1\n" for k in range(3000))
        + "    y[t,c] = z3000\n",
        "",
    ),
    "3000 names": (
        HEADER + "z0[t,c] = x\n" + "".join(f"    z{k + 1} = z{k}\n" for k in range(3000)) + "    y[t,c] = z3000\n",
        "",
    ),
    "3000 names backwards": (
        HEADER
        + "y[t,c] = z3000\n"
        + "".join(f"    z{k + 1} = z{k}\n" for k in reversed(range(3000)))
        + "    z0[t,c] = x\n",
        "too-deep",
    ),
    "a ring of 1000": (
        HEADER + "".join(f"z{k}[t,c] = z{(k + 1) % 1000}[t-1] + x\n    " for k in range(1000)) + "y[t,c] = z0\n",
        "",
    ),
    "1000 faults": (
        HEADER + "".join(f"z{k}[t,c] = nothing{k}\n    " for k in range(1000)) + "y[t,c] = x\n",
        "unknown-name",
    ),
}


@pytest.mark.parametrize("text, code", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_texts(text: str, code: str) -> None:
    start = time.process_time()  # of this process alone: the machine may be busy
    found = code_of(text)
    assert time.process_time() - start < 5
    assert found == code or code == "any"


def test_many_faults_are_few_in_the_report() -> None:
    with pytest.raises(SeqError) as caught:
        load_system(HOSTILE["1000 faults"][0])
    assert 20 < len(caught.value.diagnostics) < 50


# Names ---------------------------------------------------------------------------------------------------------------

LANGUAGE = (
    "import from mixer fn monoid index over param const claim when for in and or not sum mean int bool complex real per"
)
PYTHON = sorted(
    {
        *keyword.kwlist,
        *keyword.softkwlist,
        "print",
        "list",
        "dict",
        "eval",
        "exec",
        "self",
        "type",
        "len",
        "torch",
        "np",
        "numpy",
        "nn",
        "forward",
        "Tensor",
        "Module",
        "device",
        "cuda",
        "float",
        "str",
        "object",
        "super",
        "state",
        "position",
        "batch",
        "training",
        "__class__",
        "__init__",
        "x1",
        "a_b",
        "_",
    }
    - {*LANGUAGE.split()}
)


@pytest.mark.parametrize("name", PYTHON)
def test_names_of_python_are_names(name: str) -> None:
    """As a tensor, a param, an index, an option and a mixer; or the parser says that it is no name."""
    text = (
        f"mixer f(x[t,c]) -> {name}[t,c]:\n    {name}[t,c] = {name}[t-1] + x\n\n"
        f"mixer g(x[t,{name}]) -> y[t,{name}]:\n    y[t,{name}] = {name} + x\n\n"
        f"mixer {name}q(x[t]; {name} = 2) -> y[t]:\n    param w[n: {name}] = 1\n    y[t] = x + sum[n] w\n\n"
        f"mixer h({name}[t]) -> y[t]:\n    y[t] = 2 * {name}\n"
    )
    assert code_of(text) == ""


@pytest.mark.parametrize("name", LANGUAGE.split())
def test_keywords_are_reserved(name: str) -> None:
    assert code_of(f"mixer f(x[t]) -> y[t]:\n    {name}[t] = x\n    y[t] = x\n") != ""
    assert code_of(f"mixer f({name}[t]) -> y[t]:\n    y[t] = 1\n") != ""


# Imports -------------------------------------------------------------------------------------------------------------


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.seq").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(files))}.seq"


def refused(path: Path) -> str:
    with pytest.raises(SeqError) as caught:
        load_system(path)
    return caught.value.code


BODY = "mixer {0}(x[t]) -> y[t]:\n    y[t] = {1}(x)\n"


def test_import_cycles(tmp_path: Path) -> None:
    assert refused(write(tmp_path, a="import a from a\n\n" + BODY.format("a", "a"))) == "import-cycle"
    path = write(
        tmp_path,
        a="import b from b\n\n" + BODY.format("a", "b"),
        b="import c from c\n\n" + BODY.format("b", "c"),
        c="import a from a\n\n" + BODY.format("c", "a"),
    )
    with pytest.raises(SeqError) as caught:
        load_system(path)
    assert caught.value.diagnostics[0].notes == ("`a` -> `b` -> `c` -> `a`",)


def test_imports(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        a="import b, two from b\n\n" + BODY.format("a", "b"),
        b="fn two(x) = 2 * x\n\n" + BODY.format("b", "two"),
    )
    assert interpret(load_system(path), inputs={"x": np.ones(3)})["outputs"]["y"].tolist() == [2, 2, 2]
    for text, code in {
        "import nothing from b": "unknown-import",
        "import b from nothing": "unknown-import",
        "import exp from b": "unknown-import",
        "import b from b\nimport b from b": "duplicate-definition",
        "import two from b": "",
    }.items():
        write(tmp_path, c=f"{text}\n\n" + BODY.format("c", "exp"))
        assert code_of_path(tmp_path / "c.seq") == code, text
    write(tmp_path, c="import b from b\n\n" + BODY.format("c", "two"))
    assert code_of_path(tmp_path / "c.seq") == "unknown-function", "a name that is not imported does not exist"


def code_of_path(path: Path) -> str:
    try:
        load_system(path)
    except SeqError as error:
        return error.code
    return ""


def test_imports_stay_in_their_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    write(tmp_path, secret=BODY.format("secret", "exp"))
    for name in (
        "secret",
        "..secret",
        "../secret",
        "inner.secret",
        "/secret",
        f"{tmp_path}/secret",
        "\\secret",
        "~",
        "C:secret",
    ):
        path = write(inner, a=f"import secret from {name}\n\n" + BODY.format("a", "secret"))
        assert code_of_path(path) != "", name
    text = "import secret from secret\n\n" + BODY.format("a", "secret")
    assert code_of(text) == "unknown-import", "a text without a folder has no siblings"


def test_a_sibling_that_is_broken(tmp_path: Path) -> None:
    path = write(
        tmp_path, a="import b from b\n\n" + BODY.format("a", "b"), b="mixer b(x[t]) -> y[t]:\n    y[t] = zz * x\n"
    )
    with pytest.raises(SeqError) as caught:
        load_system(path)
    (fault,) = caught.value.diagnostics
    assert fault.span is not None
    assert (fault.code, Path(fault.span.source.name).name, fault.span.text) == ("unknown-name", "b.seq", "zz")
    (tmp_path / "b.seq").write_bytes(b"\xff")
    assert refused(path) == "not-utf8"


# Sizes ---------------------------------------------------------------------------------------------------------------

SIZES = [  # header options, an axis, inputs' length, sizes, code, words of message and note
    ("; N = 4", "N", 3, {}, "", ""),
    ("; N = 4", "N", 3, {"N": 0}, "bad-size", "is 0, and must be at least 1"),
    ("; N = 4", "N", 3, {"N": -2}, "bad-size", "is -2"),
    ("; N = 4", "|t| - N", 3, {}, "bad-size", "is -1"),
    ("; N = 4", "|t| // N", 3, {}, "", ""),
    ("; N = 4", "|t| // N", 3, {"N": 0}, "division-by-zero", "3 and 0"),
    ("; N = 4", "|t| % N", 3, {"N": 0}, "division-by-zero", "3 and 0"),
    ("; N = 4", "|t| / N", 3, {}, "inexact-division", "3 / 4 leaves 3"),
    ("; N = 4", "|t| / N", 8, {}, "", ""),
    ("; N = 4", "ceil(|t| / N)", 3, {}, "", ""),
    ("; N = 4", "N^N^N", 3, {}, "size-too-large", ""),
    ("; N = 4", "N * 1000000000000", 3, {}, "size-too-large", "2^40"),
    ("; N = 4", "N * 1000000000", 3, {}, "size-too-large", "4000000000 entries"),
    ("; N = 4", "N", 3, {"N": 10**30}, "size-too-large", ""),
    ("; N", "N", 3, {}, "missing-size", "`N`"),
    ("; N", "N", 3, {"N": 2}, "", ""),
]


@pytest.mark.parametrize("option, size, length, sizes, code, words", SIZES, ids=str)
def test_sizes_of_a_run(option: str, size: str, length: int, sizes: dict[str, int], code: str, words: str) -> None:
    try:
        system = load_system(f"mixer f(x[t]{option}) -> y[t]:\n    a[n: {size}] = n\n    y[t] = x + sum[n] a\n")
        interpret(system, inputs={"x": np.ones(length)}, sizes=sizes)
    except SizeError as error:
        assert error.code == code and words in f"{error.message} {error.note}"
    except SeqError as error:  # the defaults alone decide it
        assert error.code == code and words in str(error) and not sizes
    else:
        assert code == ""


def test_a_million_by_a_million_is_refused_before_it_is_made() -> None:
    system = load_system("mixer f(x[t]) -> y[t]:\n    index s over t\n    a[t,s] = x * x[s]\n    y[t] = sum[s] a\n")
    start = time.process_time()
    with pytest.raises(SizeError, match="size-too-large"):
        interpret(system, inputs={"x": np.zeros(1_000_000)})
    assert time.process_time() - start < 1


def test_inexact_division_in_a_call_shows_the_numbers() -> None:
    system = load_system(
        "mixer f(x[t,c]) -> y[t,h,d]:\n    y = heads(x; H = 3)\n\n"
        "mixer heads(x[t,c]; H = 2) -> y[t,h,d]:\n    y[t, h: H, d: |c| / H] = x[t, h * |d| + d]\n"
    )
    assert interpret(system, inputs={"x": np.zeros((2, 6))})["outputs"]["y"].shape == (2, 3, 2)
    with pytest.raises(SizeError) as caught:
        interpret(system, inputs={"x": np.zeros((2, 8))})
    assert caught.value.code == "inexact-division" and "8 / 3" in caught.value.note


# Random texts --------------------------------------------------------------------------------------------------------


WORDS = {
    "_NL": ["\n    "],
    "_INDENT": [""],
    "_DEDENT": [""],
    "NUMBER": ["0", "1", "2", "0.5"],
    "NAME": ["x", "x", "x", "t", "c", "y", "g", "N", "S", "s", "exp", "max", "softmax", "linear", "where", "fold"],
}
LARK = automaton()
AROUND = (
    "monoid fold(m):\n    identity = (0)\n    combine(a, b):\n        m = a.m + b.m\n\n"
    "mixer f(x[t,c]; N = 2) -> y[t,c]:\n    index s over t\n    {}\n    y[t,c] = x\n\n"
    "mixer g(x[t,c]) -> y[t,c]:\n    S[t,c] = S[t-1] + x\n    y[t,c] = S\n"
)


@cache
def grammar() -> tuple[dict[str, list[list[str]]], dict[str, int]]:
    """The rules of the grammar, and how deep each of their symbols is at least."""
    lark = LARK
    rules: dict[str, list[list[str]]] = {}
    for rule in lark.rules:
        rules.setdefault(rule.origin.name, []).append([symbol.name for symbol in rule.expansion])
    depth = {terminal.name: 0 for terminal in lark.terminals} | dict.fromkeys(WORDS, 0)
    while len(depth) < len(rules) + len(lark.terminals) + 3:
        for name, choices in rules.items():
            known = [max((depth[s] for s in c), default=0) for c in choices if all(s in depth for s in c)]
            if known:
                depth[name] = min(depth.get(name, 99), 1 + min(known))
        if all(name in depth for name in rules):
            break
    return rules, depth


def sentence(chance: random.Random, symbol: str, budget: int) -> Iterator[str]:
    """Words of a random sentence; where the budget is spent, the shallowest rule is taken."""
    rules, depth = grammar()
    if symbol not in rules:
        pattern = next((t.pattern.value for t in LARK.terminals if t.name == symbol), "")
        choices = pattern[3:-1].split("|") if pattern.startswith("(?:") else [pattern]
        yield chance.choice(WORDS.get(symbol, choices))
        return
    cost = {id(choice): max((depth[s] for s in choice), default=0) for choice in rules[symbol]}
    open_ = [choice for choice in rules[symbol] if cost[id(choice)] < budget]
    for part in chance.choice(open_ or [min(rules[symbol], key=lambda choice: cost[id(choice)])]):
        yield from sentence(chance, part, budget - 1)


def sentences(chance: random.Random) -> str:
    """A text with one random statement, or one random right side."""
    start = chance.choice(("statement", "expr", "expr", "expr"))
    words = "".join(f"{word} " for word in sentence(chance, start, chance.randrange(8, 24)))
    words = re.sub(r" *([{}.]) *| *\n *$", r"\1", words)
    return AROUND.format(words if start == "statement" else f"S[t,c] = {words}")


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**9))
def test_sentences_of_the_grammar_lower_or_are_refused(seed: int) -> None:
    code_of(sentences(random.Random(seed)))


TOKEN = re.compile(r"\s+|#[^\n]*|[A-Za-z_]\w*|\d+(?:\.\d+)?|->|==|<=|>=|!=|//|\.\.|[^\w\s]")
FILES = [path.read_text(encoding="utf-8") for path in sorted(CORPUS.glob("*.seq"))]


OPERATORS = ("+", "-", "*", "/", "//", "%", "^", "<", "<=", "==", ",")


def kind(word: str) -> str:
    return (
        "name" if word[:1].isalpha() else "number" if word[:1].isdigit() else "operator" if word in OPERATORS else word
    )


def mutated(chance: random.Random) -> str:
    """Words deleted, doubled or exchanged; most often one replaced by another of its kind."""
    words = TOKEN.findall("\n" + chance.choice(FILES))
    places = [k for k, word in enumerate(words) if not word.isspace() and not word.startswith("#")]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        k, j = chance.choice(places), chance.choice(places)
        match chance.randrange(12):
            case 0:
                words[k] = ""
            case 1:
                words[k] = f"{words[k]} {words[k]}"
            case 2:
                words[k], words[j] = words[j], words[k]
            case 3 | 4 if kind(words[k]) == "operator":
                words[k] = chance.choice(OPERATORS)
            case 5 if kind(words[k]) in ("name", "number"):
                words[k] = chance.choice(("0", "1", "2", "(-1)", "0.5", "t", "x"))
            case _:
                words[k] = words[chance.choice([i for i in places if kind(words[i]) == kind(words[k])])]
    return "".join(words)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**9))
def test_mutations_of_the_corpus_lower_or_are_refused(seed: int) -> None:
    code_of(mutated(random.Random(seed)))
