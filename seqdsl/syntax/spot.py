"""The place of a syntax error: the token that does not fit, what stands around it, and what could have stood there.

Knows the grammar's terminals, and how to name them in words. Entry points: `Spot`, `Rule`, `in_words`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

from seqdsl.diagnostics import Diagnostic, Span
from seqdsl.syntax.layout import CLOSING, OPENING, Lexeme, after

SYMBOLS = {
    "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]", "COMMA": ",", "SEMICOLON": ";", "COLON": ":", "EQUAL": "=",
    "ARROW": "->", "RANGE": "..", "DOT": ".", "VBAR": "|", "PLUS": "+", "MINUS": "-", "STAR": "*", "DIVIDE": "/",
    "CIRCUMFLEX": "^",
}
KEYWORDS = frozenset("IMPORT FROM MIXER FN MONOID INDEX OVER PARAM CONST CLAIM WHEN FOR IN AND OR NOT SUM MEAN INT "
                     "BOOL COMPLEX REAL PER".split())
TYPES = frozenset({"INT", "BOOL", "COMPLEX", "REAL"})
DECLARATIONS = frozenset({"IMPORT", "MIXER", "FN", "MONOID"})
REDUCERS = frozenset({"SUM", "MEAN"})
OPERATORS = frozenset({"PLUS", "MINUS", "STAR", "DIVIDE", "CIRCUMFLEX", "COMPARE", "AND", "OR"})
LAYOUT = frozenset({"_NL", "_INDENT", "_DEDENT", "$END"})

# Groups of terminals that one phrase names, tried in this order: the first set is what shows the group, the second what
# the phrase then covers.
_PHRASES: tuple[tuple[frozenset[str], frozenset[str], str], ...] = (
    (frozenset({"NAME", "PARAM", "CLAIM", "FOR"}),
     frozenset({"NAME", "INDEX", "PARAM", "CONST", "CLAIM", "FOR"}), "a statement"),
    (frozenset({"NAME", "PARAM", "CLAIM"}), frozenset({"NAME", "PARAM", "CLAIM"}), "a member"),
    (frozenset({"NAME", "NUMBER", "LPAR"}),
     frozenset({"NAME", "NUMBER", "LPAR", "VBAR", "MINUS", "NOT", "SUM", "MEAN"}), "an expression"),
    (frozenset({"NAME", "NUMBER"}), frozenset({"NAME", "NUMBER", "MINUS", "VBAR"}), "an index or a constant"),
    (frozenset({"NAME", "PER"}), frozenset({"NAME", "PER"}), "a setting, `bias = true`"),
    (frozenset({"PLUS", "MINUS"}), OPERATORS | {"LPAR", "LSQB", "DOT"}, "an operator"),
    (TYPES, TYPES, "a type (`int`, `bool`, `complex`, `real`)"),
)
_WORDS = {"NAME": "a name", "NUMBER": "a number", "COMPARE": "a comparison", "_NL": "the end of the line",
          "_INDENT": "an indented block", "_DEDENT": "the end of the block", "$END": "the end of the text"}
# Reading order of what no phrase covers.
_ORDER = ["NAME", *SYMBOLS, "MIXER", "FN", "MONOID", "IMPORT", *sorted(KEYWORDS), *_WORDS]


@dataclass(frozen=True)
class Spot:
    """Token `at` of `tokens` is none of the kinds `accepted`; at `len(tokens)` stands the end. `start` is the rule."""

    tokens: tuple[Lexeme, ...]
    at: int
    accepted: frozenset[str]
    start: str

    @property
    def bad(self) -> Lexeme | None:
        """The token that does not fit; None at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    @property
    def kind(self) -> str:
        """The kind of the token that does not fit."""
        return self.tokens[self.at].type if self.at < len(self.tokens) else "$END"

    @property
    def text(self) -> str:
        """Its text."""
        return str(self.tokens[self.at]) if self.at < len(self.tokens) else ""

    @property
    def span(self) -> Span:
        """Its place; the empty span behind the last word where a line ends."""
        if self.at < len(self.tokens) and self.kind not in LAYOUT:
            return self.tokens[self.at].span
        words = [token for token in self.tokens[: self.at + 1] if token.type not in LAYOUT]
        return after(words[-1] if words else self.tokens[0])

    def before(self, count: int = 1) -> Lexeme | None:
        """The token `count` places before, line ends and blocks not counted."""
        index = self.at - count
        return self.tokens[index] if index >= self.line_start else None

    def kinds_before(self, count: int) -> tuple[str, ...]:
        """The kinds of the last tokens of the line before this one, at most `count`."""
        return tuple(token.type for token in self.tokens[max(self.line_start, self.at - count) : self.at])

    @property
    def next(self) -> Lexeme | None:
        """The token behind it."""
        return self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else None

    @cached_property
    def line_start(self) -> int:
        """Where the logical line begins."""
        index = min(self.at, len(self.tokens) - 1)
        while index > 0 and self.tokens[index - 1].type not in LAYOUT:
            index -= 1
        return index if self.tokens[index].type not in LAYOUT else self.at

    @property
    def first(self) -> Lexeme | None:
        """The first token of the logical line; None where it is the one that does not fit."""
        return self.tokens[self.line_start] if self.line_start < self.at else None

    @property
    def header(self) -> str:
        """The kind of the first token of the logical line."""
        return self.first.type if self.first is not None else self.kind

    @cached_property
    def open_brackets(self) -> tuple[int, ...]:
        """Where the brackets that are open here stand, outermost first."""
        found: list[int] = []
        for index in range(self.line_start, self.at):
            if self.tokens[index].type in OPENING:
                found.append(index)
            elif self.tokens[index].type in CLOSING and found:
                found.pop()
        return tuple(found)

    @property
    def opener(self) -> Lexeme | None:
        """The innermost open bracket."""
        return self.tokens[self.open_brackets[-1]] if self.open_brackets else None

    @property
    def opens_arguments(self) -> bool:
        """Whether the innermost open bracket is that of a call or a header."""
        index = self.open_brackets[-1] if self.open_brackets else 0
        return index > self.line_start and self.tokens[index].type == "LPAR" and (
            self.tokens[index - 1].type in ("NAME", "RSQB"))

    @property
    def begins_physical_line(self) -> bool:
        """Whether it stands first in a physical line that continues a logical one."""
        previous = self.before()
        return previous is not None and self.kind not in LAYOUT and self.span.line > previous.span.line

    def touches(self, other: Lexeme | None) -> bool:
        """Whether `other` stands directly before or behind it."""
        return other is not None and other.type not in LAYOUT and (
            other.span.end == self.span.start or other.span.start == self.span.end)

    def fault(self, code: str, message: str, span: Span | None = None, *, label: str = "",
              notes: tuple[str, ...] = (), help: str = "") -> Diagnostic:
        """A diagnostic, at the token unless a span is given."""
        return Diagnostic(code, message, span or self.span, label, notes, help)


Rule = Callable[[Spot], Diagnostic | None]  # the fault at a spot, where the rule knows it


def in_words(accepted: Collection[str]) -> str:
    """What could have stood there: `an operator, `)` or `;``."""
    left, phrases = set(accepted), list[str]()
    for shown_by, covered, phrase in _PHRASES:
        if shown_by <= left:
            left -= covered
            phrases.append(phrase)
    left -= {"$END", "_DEDENT"} if phrases or left - {"$END", "_DEDENT"} else set()
    phrases += [_word(kind) for kind in sorted(left, key=_ORDER.index)]
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + f" or {phrases[-1]}"


def _word(kind: str) -> str:
    return _WORDS.get(kind) or f"`{SYMBOLS.get(kind, kind.lower())}`"
