"""Reads one line of a system's textual form: names, strings, expressions. `text` describes the form and writes it.

A text may come from anyone: every fault is a `SeqError` with the code `bad-ir-text`, and nothing of it is executed.
What can be read need not make sense; `validate` says whether it does.

Architecture invariant: knows the shapes of `attr` and how strongly infix operators bind, no operator's meaning.
Entry points: `Line`, `expression`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn

from seqdsl.diagnostics import SeqError, Source, Span
from seqdsl.ir.node import Node
from seqdsl.ir.notation import INFIX, NOT, POWER, REAL, RESERVED, WORD
from seqdsl.ir.ops import OPS, make

_SYMBOLS = {symbol: (level, op) for op, (level, symbol) in INFIX.items()}
TYPES = ("bool", "int", "real", "complex")
_NUMBERS = ("real", "float", "inf", "pi", "true", "false")
_LONGEST_INTEGER = 1000  # digits
_TOKEN = re.compile(rf"""(?P<blank>[ \t]+)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<quoted>`(?:[^`\\]|\\.)*`)
    |(?P<real>{REAL.pattern[2:]})|(?P<imaginary>1i)|(?P<int>\d+)|(?P<word>{WORD.pattern})
    |(?P<symbol>->|//|<=|>=|==|!=|[-+*/%^<>|()\[\],;:=$])""", re.VERBOSE)


# Lines -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    kind: str  # string, quoted, real, imaginary, int, word, symbol or end
    text: str
    start: int


class Line:
    """The tokens of one line and how far it has been read."""

    def __init__(self, source: Source, number: int, start: int, text: str) -> None:
        self.source, self.number, self.start, self.at = source, number, start, 0
        self.tokens = list(self._tokens(text))
        self._closing = dict(self._brackets())

    def _tokens(self, text: str) -> Iterator[_Token]:
        place = 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                self.fail(f"`{text[place]}` begins nothing", _Token("symbol", text[place], place))
            if match.lastgroup != "blank":
                yield _Token(str(match.lastgroup), match.group(), place)
            place = match.end()
        yield _Token("end", "", len(text))

    def _brackets(self) -> Iterator[tuple[int, int]]:
        """Places of opening brackets and of those that close them."""
        opened: list[int] = []
        for place, token in enumerate(self.tokens):
            if token.kind == "symbol" and token.text == "[":
                opened.append(place)
            elif token.kind == "symbol" and token.text == "]" and opened:
                yield opened.pop(), place

    def called(self) -> bool:
        """Does a parenthesis follow the bracket that opens here, as in `sum[d](..)`?"""
        after = self.tokens[self._closing.get(self.at, len(self.tokens) - 2) + 1]
        return after.kind == "symbol" and after.text == "("

    def fail(self, message: str, token: _Token | None = None) -> NoReturn:
        """Raise `bad-ir-text` at a token, the next one by default."""
        found = self.tokens[self.at] if token is None else token
        start = self.start + found.start
        span = Span(self.source, start, start + max(1, len(found.text)), self.number, found.start + 1)
        raise SeqError("bad-ir-text", message, span)

    @property
    def next(self) -> str:
        """The next symbol or word, else "": strings, quoted names and the line's end are neither."""
        token = self.tokens[self.at]
        return token.text if token.kind in ("symbol", "word") else ""

    def take(self, text: str) -> bool:
        """Go past a symbol or word if it is next."""
        found = self.next == text
        self.at += found
        return found

    def expect(self, text: str) -> None:
        """Go past a symbol or word that must be next."""
        if not self.take(text):
            self.fail(f"expected `{text}`")

    def kind(self, *kinds: str) -> str:
        """Go past a token of one of these kinds, and give its text."""
        token = self.tokens[self.at]
        if token.kind not in kinds:
            self.fail(f"expected a {'name' if 'word' in kinds else kinds[0]}")
        self.at += 1
        return token.text

    def choice(self, what: str, names: tuple[str, ...]) -> str:
        """Go past one of these words."""
        if self.next not in names:
            self.fail(f"expected a {what}: {', '.join(names)}")
        return self.kind("word")

    def is_name(self) -> bool:
        token = self.tokens[self.at]
        return token.kind == "quoted" or (token.kind == "word" and token.text not in RESERVED)

    def name(self) -> str:
        if not self.is_name():
            self.fail("expected a name")
        text = self.kind("word", "quoted")
        return self._unescaped(text) if text.startswith("`") else text

    def string(self) -> str:
        return self._unescaped(self.kind("string"))

    def _unescaped(self, text: str) -> str:
        try:
            return str(json.loads(f'"{text[1:-1]}"'))
        except ValueError:
            self.fail("a string is malformed", self.tokens[self.at - 1])

    def integer(self) -> int:
        sign = -1 if self.take("-") else 1
        digits = self.kind("int")
        if len(digits) > _LONGEST_INTEGER:
            self.fail("the number is too long", self.tokens[self.at - 1])
        return sign * int(digits)

    def names(self) -> tuple[str, ...]:
        """Names with commas between them, or none."""
        found = [self.name()] if self.is_name() else []
        while found and self.take(","):
            found.append(self.name())
        return tuple(found)

    def several(self, part: Callable[[], str]) -> tuple[str, ...]:
        """As many names or strings as stand there."""
        found = []
        while self.next != ";" and self.tokens[self.at].kind != "end":
            found.append(part())
        return tuple(found)

    def finish(self) -> None:
        """The line must end here."""
        if self.tokens[self.at].kind != "end":
            self.fail("expected the end of the line")


# Expressions -----------------------------------------------------------------------------------------------------


def expression(line: Line, least: int = 0) -> Node:
    """Read as far as operators bind at least as strongly as `least`."""
    node = _prefix(line)
    while line.next in _SYMBOLS and _SYMBOLS[line.next][0] >= least:
        level, op = _SYMBOLS[line.kind("symbol", "word")]
        literal = line.tokens[line.at].kind in ("int", "real") or line.next == "real"
        right = expression(line, level + 1)
        opposite = _negated(right) if op == "sub" and literal and str(right.attr)[0] != "-" else None
        node = make(op, node, right) if opposite is None else make("add", node, opposite)  # x - 1 is x + -1
    return node


def _negated(node: Node) -> Node | None:
    value = node.attr
    usual = {int: "int", Fraction: "real"}.get(type(value))
    if node.op == "const" and isinstance(value, int | Fraction) and node.dtype == usual:
        return make("const", attr=-value, dtype=node.dtype)
    return None


def _prefix(line: Line) -> Node:
    if line.take("not"):
        return make("not", expression(line, NOT + 1))
    if line.take("-"):
        if line.tokens[line.at].kind in ("int", "real"):
            negative = _negated(_number(line))
            assert negative is not None
            return _typed(line, negative)
        return make("neg", expression(line, POWER))
    return _typed(line, _atom(line))


def _typed(line: Line, node: Node) -> Node:
    if not line.take(":"):
        return node
    dtype = line.choice("type", TYPES)
    return make(node.op, *node.args, attr=node.attr, dtype=dtype)


def _atom(line: Line) -> Node:
    if line.tokens[line.at].kind in ("int", "real", "imaginary") or line.next in _NUMBERS:
        return _number(line)
    if line.take("("):
        node = expression(line)
        line.expect(")")
        return node
    if line.take("$"):
        return make("option", attr=line.name())
    if line.take("|"):
        node = make("size", attr=line.name())
        line.expect("|")
        return node
    if line.take("fold"):
        return _binder(line, "fold", line.name())
    name = line.name()
    if line.next == "(":
        return _call(line, name)
    if line.next == "[":
        return _binder(line, name) if line.called() else _read(line, name)
    return make("index", attr=name)


def _number(line: Line) -> Node:
    kind = line.tokens[line.at].kind
    if kind == "int":
        return make("const", attr=line.integer(), dtype="int")
    if kind == "real":
        return make("const", attr=Fraction(line.kind("real")), dtype="real")
    if kind == "imaginary":
        line.kind("imaginary")
        return make("const", attr="i", dtype="complex")
    word = line.kind("word")
    if word in ("true", "false"):
        return make("const", attr=word == "true", dtype="bool")
    if word in ("inf", "pi"):
        return make("const", attr=word, dtype="real")
    line.expect("(")
    if word == "float":
        sign = -1.0 if line.take("-") else 1.0
        text = line.kind("real", "int", "word")
        if text[0].isalpha() and text not in ("inf", "nan"):
            line.fail("expected a number", line.tokens[line.at - 1])
        value = sign * float(text)
        line.expect(")")
        return make("const", attr=value, dtype="real")
    above, below = line.integer(), line.integer() if line.take("/") else 1
    if below < 1:
        line.fail("a fraction needs a positive denominator")
    line.expect(")")
    return make("const", attr=Fraction(above, below), dtype="real")


def _read(line: Line, name: str) -> Node:
    line.expect("[")
    subscripts = _expressions(line, "]")
    line.expect("]")
    return make("read", *subscripts, attr=name, dtype="real")


def _expressions(line: Line, close: str) -> tuple[Node, ...]:
    """Expressions with commas between them, or none, up to the closing symbol or a `;`, which stay."""
    if line.next in (close, ";"):
        return ()
    found = [expression(line)]
    while line.take(","):
        found.append(expression(line))
    return tuple(found)


def _call(line: Line, op: str) -> Node:
    row = OPS.get(op)
    if row is None or row.binding or op in ("const", "index", "size", "option", "read"):
        line.fail(f"`{op}` is no function of operands alone", line.tokens[line.at - 1])
    if op == "first":
        line.expect("(")
        node = make("first", attr=line.name())
        line.expect(")")
        return node
    args, settings = _operands(line)
    return _make(line, op, args, settings)


def _binder(line: Line, op: str, monoid: str = "") -> Node:
    row, start = OPS.get(op), line.tokens[line.at - 1]
    if row is None or not row.binding or (op == "fold") != bool(monoid):
        line.fail(f"`{op}` works along no index", start)
    line.expect("[")
    indices = line.names()
    second: tuple[str, ...] = indices if row.binding == "map" else ()
    if row.binding in ("map", "fold") and line.take("->") or row.binding in ("scan", "last") and line.take(";"):
        second = line.names()
    guard = make("const", attr=True, dtype="bool")
    guarded = row.binding in ("reduce", "along", "fold")
    if guarded and line.take("|"):
        guard = expression(line)
    line.expect("]")
    args, settings = _operands(line)
    if guarded:
        args = (*args, guard)
    if row.binding == "fold":
        return _make(line, op, args, (monoid, indices, second))
    return _make(line, op, args, (indices, settings) if guarded else (indices, second, settings))


def _operands(line: Line) -> tuple[tuple[Node, ...], tuple[tuple[str, Hashable], ...]]:
    line.expect("(")
    args = _expressions(line, ")")
    settings: list[tuple[str, Hashable]] = []
    if line.take(";"):
        while not settings or line.take(","):
            key = line.name()
            line.expect("=")
            settings.append((key, _setting(line)))
    line.expect(")")
    return args, tuple(settings)


def _setting(line: Line) -> Hashable:
    if line.is_name():
        return line.name()
    value = _prefix(line)
    if value.op != "const":
        line.fail("expected a number or a name")
    constant: Hashable = value.attr
    return constant


def _make(line: Line, op: str, args: tuple[Node, ...], attr: Hashable) -> Node:
    row = OPS[op]
    if row.arity is not None and row.arity != len(args):
        line.fail(f"`{op}` takes {row.arity} operands, not {len(args)}", line.tokens[line.at - 1])
    return make(op, *args, attr=attr, dtype="real" if op == "fold" else None)
