"""The parser: text to tree, or a `SeqError` that reports one fault for each top-level declaration.

    characters --lark's lexer--> lexemes --layout--> chunks, one for each declaration --LALR(1)--> tree

Invariant: no text, however hostile, raises anything but `SeqError`, and none takes long (source.LARGEST,
layout.LONGEST and layout.DEEPEST bound it). Entry points: `parse`, `parse_text`, `read_source`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import lark
from lark import Lark, Token, UnexpectedCharacters, UnexpectedToken

from seqdsl.config import private_folder
from seqdsl.diagnostics import Diagnostic, SeqError, Source, Span
from seqdsl.syntax import tree
from seqdsl.syntax.build import Builder
from seqdsl.syntax.characters import stray_brace, stray_characters
from seqdsl.syntax.layout import DEEPEST, Lexeme, after, chunks, lexeme, too_deep, unbalanced
from seqdsl.syntax.mistakes import diagnose, malformed_numbers
from seqdsl.syntax.source import LARGEST, read_source, too_large, whole
from seqdsl.syntax.spot import Spot

__all__ = ["parse", "parse_text", "read_source"]

_BRACES = re.compile(r"\{([^{}]*)\}")


def parse_text(text: str, name: str = "<text>") -> tree.Module:
    """The tree of a text; `name` is what messages call it."""
    return parse(Source(name, text))


def parse(source: Source) -> tree.Module:
    """The tree of a source.

    Errors: every syntax code of `faults.SYNTAX`; all stray characters together, then all faults of the layout, then one
    fault for each declaration.
    """
    if len(source.text) > LARGEST:
        raise too_large(source.name)
    if source.text.startswith("\ufeff"):
        source = Source(source.name, source.text[1:])
    stray_characters(source).check()
    tokens = _lexemes(source.text, whole(source))
    malformed_numbers(tokens).check()
    found, trailing, faults = chunks(tokens, source)
    faults.check()
    items: list[Any] = []
    for chunk in found:
        try:
            items += _items(chunk)
        except SeqError as error:
            faults += error.diagnostics
    faults.check()
    return tree.Module(tuple(items), tuple(trailing), span=whole(source))


def _items(chunk: Sequence[Lexeme]) -> tuple[Any, ...]:
    """The declaration in a chunk, with the expressions in the braces of its names."""
    for token in chunk:
        if token.type == "NAME" and "{" in token:
            token.parts = tuple(_parts(token))
    items: tuple[Any, ...] = _derive(chunk, "start")
    for item in items:
        _check_depth(item)
    return items


def _parts(name: Lexeme) -> Iterator[str | tree.Expr]:
    """The text and the arithmetic of a numbered name, in turn."""
    text, end = str(name), 0
    for match in _BRACES.finditer(text):
        yield text[end : match.start()]
        start, end = match.start(1), match.end()
        if not match.group(1).strip():
            raise SeqError("empty-brackets", f"`{text}` has empty braces", _within(name.span, start - 1, end),
                           help="write what numbers the name, `x{l}`")
        tokens = _lexemes(match.group(1), _within(name.span, start, end - 1))
        malformed_numbers(tokens).check()
        unbalanced(tokens).check()
        expr = _derive(tokens, "arith")
        _check_depth(expr)
        yield expr
    if end < len(text):
        yield text[end:]


def _within(span: Span, start: int, end: int) -> Span:
    """Characters `start` to `end` of a span that lies in one line."""
    return Span(span.source, span.start + start, span.start + end, span.line, span.column + start)


def _derive(tokens: Sequence[Lexeme], start: str) -> Any:
    """Run the LALR automaton; at a token it does not accept, say what is wrong."""
    machine = _lark().parse_interactive(start=start)
    fed = 0
    try:
        for token in tokens:
            machine.feed_token(token)
            fed += 1
        return machine.feed_token(lexeme("$END", "", after(tokens[-1])))
    except UnexpectedToken:
        accepted = _accepted(tokens[:fed], start)
    raise SeqError.of([diagnose(Spot(tuple(tokens), fed, accepted, start))])


def _accepted(tokens: Sequence[Lexeme], start: str) -> frozenset[str]:
    """The kinds of token that may follow, found anew: at a wrong token the automaton may already have reduced."""
    machine: Any = _lark().parse_interactive(start=start)
    for token in tokens:
        machine.feed_token(token)
    return frozenset(machine.accepts())


def _lexemes(text: str, place: Span) -> list[Lexeme]:
    """The lexemes of a text that stands at `place`."""
    machine: Any = _lark().parse_interactive(text, start="start")
    found: list[Lexeme] = []
    try:
        for token in machine.lexer_thread.lex(machine.parser_state):
            found.append(_placed(token, place))
    except UnexpectedCharacters as error:
        raise SeqError.of([stray_brace(text, error.pos_in_stream or 0, place)]) from None
    return found


def _placed(token: Token, place: Span) -> Lexeme:
    start = place.start + (token.start_pos or 0)
    line, column = token.line or 1, token.column or 1
    if line == 1:
        column += place.column - 1
    return lexeme(token.type, str(token), Span(place.source, start, start + len(token), place.line + line - 1, column))


def automaton(**options: Any) -> Lark:
    """Lark's parser of the grammar, built from its text."""
    grammar = files("seqdsl.grammar").joinpath("seq.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="basic", start=["start", "arith"], keep_all_tokens=True,
                maybe_placeholders=True, transformer=Builder(), **options)


@cache
def _lark() -> Lark:
    """The same, from the tables of an earlier run where there are some; lark checks that they are of this grammar."""
    version = f"{lark.__version__}-py{sys.version_info[0]}{sys.version_info[1]}"
    return automaton(cache=str(private_folder() / f"grammar-{version}.tables"))


def _check_depth(root: tree.Node) -> None:
    """Refuse a tree that is too deep for recursion, without recursion; long chains `a + a + ..` are deep too."""
    level: list[Any] = [root]
    for _ in range(DEEPEST + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise SeqError.of([_deep(level[0])])


def _deep(node: tree.Node) -> Diagnostic:
    return too_deep(node.span, f"this expression is nested more than {DEEPEST} levels deep")


def _children(node: tree.Node) -> Iterator[tree.Node]:
    for value in vars(node).values():
        if isinstance(value, tree.Node):
            yield value
        elif isinstance(value, tuple):
            for entry in value:
                if isinstance(entry, tree.Node):
                    yield entry
                elif isinstance(entry, tuple):
                    yield from (part for part in entry if isinstance(part, tree.Node))


