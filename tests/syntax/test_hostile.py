"""Texts that were made to break a parser: each is parsed or refused by `SeqError`, within a second."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.lark import from_lark

from seqdsl.diagnostics import SeqError
from seqdsl.syntax import format_module, parse_text, read_source
from seqdsl.syntax.parser import automaton
from seqdsl.syntax.source import LARGEST, decode

HEADER = "mixer f(x[t,c]) -> y[t,c]:\n    "


def code_of(text: str) -> str:
    """The code of the first fault; nothing for a text that parses, which must then format too."""
    try:
        module = parse_text(text)
    except SeqError as error:
        assert str(error)
        return error.code
    assert parse_text(format_module(module)) == module
    return ""


MANY = 10_000
HOSTILE = [
    (HEADER + "y = " + "(" * MANY + "x" + ")" * MANY, "too-deep"),
    (HEADER + "y = " + "(" * MANY, "too-deep"),
    (HEADER + "y = " + ")" * MANY, "unmatched-bracket"),
    (HEADER + "y = " + "f(" * MANY + ")" * MANY, "too-deep"),
    (HEADER + "y = " + "x[" * MANY + "]" * MANY, "too-deep"),
    (HEADER + "y = " + "-" * MANY + "x", "too-deep"),
    (HEADER + "y = " + "not " * MANY + "x", "too-deep"),
    (HEADER + "y = " + "sum[d] " * 3000 + "x", "too-deep"),
    (HEADER + "y = " + "x^" * 5000 + "x", "too-deep"),
    (HEADER + "y = x" + " + x" * 5000, "too-deep"),
    (HEADER + "y = x" + " + x" * MANY, "line-too-long"),
    (HEADER + "y = x" + " < x" * 5000, ""),
    (HEADER + "y = f(" + "x, " * 5000 + "x)", ""),
    (HEADER + "const w[n] = (" + "1, " * 5000 + "1)", ""),
    (HEADER + "y = x{" + "1+" * 500 + "1}", "too-deep"),
    (HEADER + "y = x{" + "(" * MANY + "1" + ")" * MANY + "}", "too-deep"),
    (HEADER + "y = x" + "{1}" * 5000, ""),
    (HEADER + "y = x" + "{" * MANY + "}" * MANY, "unexpected-character"),
    (HEADER + "y = " + "a" * 200_000, "name-too-long"),
    (HEADER + "y = " + "a" * 129, "name-too-long"),
    (HEADER + "y = " + "a" * 128 + "  # " + "a" * 129, ""),
    (HEADER + "y = " + "1" * 200_000, "bad-number"),
    (HEADER + "y = 1e" + "9" * 5000, "bad-number"),
    (HEADER + "".join(f"for l in 0..1:\n{' ' * depth}" for depth in range(5, 500)) + "y = x", "too-deep"),
    ("mixer f(x) -> y:\n" + "    y = x\n  y = x\n" * 5000, "bad-dedent"),
    ("mixer f(x) -> y:\n" * MANY, "missing-block"),
    ("α" * 100_000, "unexpected-character"),
    ("\0" * 100_000, "nul-byte"),
    ("\r" * 100_000, "unexpected-character"),
    ("\n" * 500_000, ""),
    (" " * 500_000, ""),
    ("#" * 500_000, ""),
    ("# a\n" * 20_000, ""),
    (HEADER + "for l in 0..1:\n" + "        y = x\n" * 2000 + "      # a\n" * 20_000 + "    y = x", ""),
    (HEADER + "y = f(" + ", ".join(["x" * 99] * 4000) + ")", ""),
    ("#\n\n" * 20_000 + "fn f(x) = x", ""),
    ("\t \t" * 100_000 + "fn f(x) = x", "mixed-indentation"),
    ("\\" * 1000, "host-language"),
    ("import a from a\n" * 2000, ""),
    ("x" * LARGEST + "x", "file-too-large"),
    ("\udc80", "not-utf8"),
    ("# \ud800", "not-utf8"),
    ("\ufeff\ufeff", "unexpected-character"),
    ("\u2028", "unexpected-character"),
    ("𝒙 = 1", "unexpected-character"),
]


@pytest.mark.parametrize("text, code", HOSTILE, ids=[f"{index}-{code}" for index, (_, code) in enumerate(HOSTILE)])
def test_hostile_texts(text: str, code: str) -> None:
    start = time.process_time()
    found = code_of(text)
    assert time.process_time() - start < 3  # under one on an idle machine
    assert found == code


def test_many_faults_are_few_in_the_report() -> None:
    for line in ("y = α\n", "y = 1x\n", "y = )\n", "\ty = x\n  z = y\n"):
        with pytest.raises(SeqError) as caught:
            parse_text(HEADER + line * 5000)
        assert len(caught.value.diagnostics) < 50


# Files ---------------------------------------------------------------------------------------------------------------


def test_files(tmp_path: Path) -> None:
    good = tmp_path / "good.seq"
    good.write_bytes(b"\xef\xbb\xbf# caf\xc3\xa9\r\nfn f(x) = x\r\n")
    source = read_source(good)
    assert source.name == str(good) and source.text.startswith("# café\r\n")
    assert read_source(str(good)).text == source.text


@pytest.mark.parametrize("data, code", [
    (b"# caf\xe9", "not-utf8"), (b"\xff\xfef\x00n\x00", "not-utf8"), (b"# \xed\xa0\x80", "not-utf8"),
    (b"x" * (LARGEST + 1), "file-too-large"), (b"\n" * 5_000_000, "file-too-large"),
])
def test_files_that_are_no_texts(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "bad.seq"
    path.write_bytes(data)
    start = time.process_time()
    with pytest.raises(SeqError) as caught:
        read_source(path)
    assert caught.value.code == code
    assert time.process_time() - start < 1
    with pytest.raises(SeqError) as caught:
        decode(data)
    assert caught.value.code == code


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none.seq", tmp_path, tmp_path / "file" / "x.seq", "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(SeqError) as caught:
            read_source(path)
        assert caught.value.code == "file-not-found"


# Random texts --------------------------------------------------------------------------------------------------------

LAYOUT = {"_NL": st.just("\n"), "_INDENT": st.sampled_from(["    ", " ", ""]), "_DEDENT": st.just("")}


FEW = settings(max_examples=settings().max_examples // 2, suppress_health_check=list(HealthCheck))


@FEW
@given(from_lark(automaton(), start="start", explicit=LAYOUT))
def test_sentences_of_the_grammar(text: str) -> None:
    code_of(text)


PIECES = st.sampled_from([
    *"mixer fn monoid import from index over param const claim when for in and or not sum mean int".split(),
    *"per x y[t] S combine(a, identity = 1 2.5 1e-6 3i ( ) [ ] { } | |t| , ; : -> = == <=".split(),
    *"+ - * / // % ^ . .. # x{l+1} α ! \"".split(), "\n", "\n    ", "\n\t", "\r\n"])


@given(st.lists(PIECES, max_size=30), st.sampled_from(["", " "]))
def test_random_words(pieces: list[str], glue: str) -> None:
    code_of(glue.join(pieces))
    code_of(HEADER + glue.join(pieces))


@given(st.text(max_size=60))
def test_random_characters(text: str) -> None:
    code_of(text)
    code_of(HEADER + text)


CORPUS = sorted((Path(__file__).resolve().parent.parent / "corpus").glob("*.seq"))


@given(st.sampled_from(CORPUS), st.integers(0, 2000), st.integers(0, 12),
       st.sampled_from(["", " ", "(", "]", "=", "\n", "sum", "é"]))
def test_wounded_corpus(path: Path, start: int, length: int, instead: str) -> None:
    text = path.read_text(encoding="utf-8")
    start %= len(text)
    code_of(text[:start] + instead + text[start + length :])
