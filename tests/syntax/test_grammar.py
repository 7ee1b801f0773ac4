"""The grammar itself: LALR(1) without a conflict, and in step with the builder and the words of messages."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from lark import Lark
from lark.lexer import Lexer

from seqdsl.syntax import parser
from seqdsl.syntax.build import Builder
from seqdsl.syntax.spot import KEYWORDS, LAYOUT, SYMBOLS, in_words

GRAMMAR = files("seqdsl.grammar").joinpath("seq.lark").read_text(encoding="utf-8")


class NoLexer(Lexer):
    """Lark checks regular expressions only for lexers of its own, and the automaton always."""

    def __init__(self, conf: Any) -> None: ...

    def lex(self, lexer_state: Any, parser_state: Any) -> Any:
        return iter(())


def test_the_automaton_has_no_conflict() -> None:
    Lark(GRAMMAR, parser="lalr", lexer=NoLexer, start=["start", "arith"], strict=True)


def test_no_two_terminals_match_the_same_text() -> None:
    Lark(GRAMMAR, parser="lalr", lexer="basic", start=["start", "arith"], strict=True)


def test_regular_terminals_begin_with_different_characters() -> None:
    lark = Lark(GRAMMAR, parser="lalr", lexer="basic", start=["start", "arith"])
    characters = "abz_AZ019 \t\r\n#<>=!/%"
    for character in characters:
        begun = [terminal.name for terminal in lark.terminals if type(terminal.pattern).__name__ == "PatternRE"
                 and any(_matches(terminal, character + rest) for rest in ("", "=", "/", "x"))]
        assert len(begun) <= 1, (character, begun)


def _matches(terminal: Any, text: str) -> bool:
    return re.match(terminal.pattern.to_regexp(), text) is not None


def test_the_builder_has_a_method_for_each_rule() -> None:
    lark = parser.automaton()
    names = {rule.alias or rule.origin.name for rule in lark.rules}
    inlined = {name for name in names if name.startswith("_")}
    only_one_child = {"item", "member", "axis", "statement", "place", "value", "expr", "conj", "neg", "comparison",
                      "arith", "term", "sum_", "short_sum", "product", "factor", "power", "atom", "subscript"}
    assert names - inlined - only_one_child <= set(dir(Builder))


def test_every_terminal_has_words() -> None:
    names = {terminal.name for terminal in parser.automaton().terminals}
    for name in sorted(names - {"BLANK"}):
        assert in_words({name})
    keywords = {terminal.name for terminal in parser.automaton().terminals if terminal.pattern.value.isalpha()}
    assert keywords == KEYWORDS
    assert names - keywords - set(SYMBOLS) - LAYOUT == {"NAME", "NUMBER", "COMPARE", "BLANK"}
