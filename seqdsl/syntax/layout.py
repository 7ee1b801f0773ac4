"""Layout: from lark's tokens to lexemes with spans, and from physical lines to logical lines and blocks.

Invariant: the parser sees one `_NL` at the end of each logical line, which carries the line's comments, and matched
`_INDENT` and `_DEDENT`. Knows brackets and indentation, and of the grammar only which keywords begin a line.
Entry point: `chunks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lark import Token

from seqdsl.diagnostics import Diagnostic, Faults, Source, Span
from seqdsl.syntax import tree
from seqdsl.syntax.comments import Comment, assign, read_comments

DEEPEST = 100  # levels of brackets, of blocks, and of the tree: what comes later walks the tree recursively
LONGEST = 20_000  # tokens of a logical line
MOST = 20  # faults, after which reading stops

OPENING = {"LPAR": "(", "LSQB": "["}
CLOSING = {"RPAR": "(", "RSQB": "["}
PARTNER = {"(": ")", "[": "]"}
# Keywords that can only stand first in a line: one after an open bracket shows that the bracket was forgotten.
LINE_STARTS = frozenset({"MIXER", "FN", "MONOID", "IMPORT", "INDEX", "PARAM", "CONST", "CLAIM", "FOR"})


class Lexeme(Token):
    """A token with its span. A numbered name has `parts`; a line's end has the line's `comments`."""

    span: Span
    parts: tuple[str | tree.Expr, ...]
    comments: tuple[Comment, ...]


def lexeme(kind: str, text: str, span: Span) -> Lexeme:
    """A lexeme; `parts` are those of a plain name."""
    token = Lexeme(kind, text)
    token.span, token.parts, token.comments = span, (text,), ()
    return token


@dataclass(frozen=True)
class Line:
    """A logical line: an equation, a declaration, or the header of a block."""

    indent: str
    top: bool
    tokens: tuple[Lexeme, ...]

    @property
    def start(self) -> int:
        """Where the first token starts."""
        return self.tokens[0].span.start

    @property
    def first_line(self) -> int:
        """Number of the first physical line."""
        return self.tokens[0].span.line

    @property
    def last_line(self) -> int:
        """Number of the last physical line."""
        return self.tokens[-1].span.line

    @property
    def opens(self) -> bool:
        """Whether a block must follow."""
        return self.tokens[-1].type == "COLON"

    @property
    def heads(self) -> bool:
        """Whether a block follows, by how the line begins: where it does not open one, its `:` is missing."""
        first = self.tokens[0].type
        return first in ("MIXER", "MONOID", "FOR") or first == "FN" and all(t.type != "EQUAL" for t in self.tokens)


def chunks(tokens: Sequence[Lexeme], source: Source) -> tuple[list[list[Lexeme]], list[Comment], Faults]:
    """The lexemes of each top-level line with its block, layout included; the comments after the last; the faults."""
    faults = Faults()
    lines = list(_logical_lines(tokens, source.text, faults))
    owned, trailing = assign(read_comments(source.text), lines)
    found: list[list[Lexeme]] = []
    for kind, line, comments in _nested(lines, owned, faults):
        if kind == "_NL" and line.top:
            found.append([])
        if kind == "_NL":
            end = lexeme("_NL", "", after(line.tokens[-1]))
            end.comments = tuple(comments)
            found[-1] += [*line.tokens, end]
        else:
            found[-1].append(lexeme(kind, "", after(found[-1][-1])))
    return found, trailing, faults


def after(token: Lexeme) -> Span:
    """The empty span behind a token."""
    span = token.span
    return Span(span.source, span.end, span.end, span.line, span.column + span.end - span.start)


def white_before(token: Lexeme, text: str) -> str:
    """What precedes the first token of a physical line: blanks only."""
    return text[token.span.start - token.span.column + 1 : token.span.start]


def _logical_lines(tokens: Iterable[Lexeme], text: str, faults: Faults) -> Iterator[Line]:
    base: str | None = None
    indent, current = "", list[Lexeme]()
    open_brackets: list[Lexeme] = []

    def finished() -> Line:
        if len(current) > LONGEST:
            faults.append(Diagnostic("line-too-long", f"this line has more than {LONGEST} words and signs",
                                     current[0].span, help="give parts of it names, in equations of their own"))
        return Line(indent, indent == base or base is None, tuple(current))

    for token in tokens:
        if not current or token.span.line > current[-1].span.line:
            white = white_before(token, text)
            if open_brackets and token.type in LINE_STARTS:
                faults.append(_unclosed(open_brackets[-1]))
                open_brackets = []
            if current and not open_brackets and not _continues(token, white, indent, current[-1]):
                yield finished()
                current = []
            if not current:
                indent = white
                base = white if base is None else base
        if not _track(token, open_brackets, faults):
            current.append(token)
            break
        current.append(token)
    else:
        if open_brackets:
            faults.append(_unclosed(open_brackets[-1]))
    if current:
        yield finished()


def _continues(token: Lexeme, white: str, indent: str, last: Lexeme) -> bool:
    deeper = white.startswith(indent) and len(white) > len(indent)
    return deeper and last.type != "COLON" and token.type not in LINE_STARTS


def _track(token: Lexeme, open_brackets: list[Lexeme], faults: Faults) -> bool:
    """Open or close a bracket; False where reading on makes no sense."""
    if token.type in OPENING:
        open_brackets.append(token)
        if len(open_brackets) > DEEPEST:
            faults.append(too_deep(token.span, f"more than {DEEPEST} brackets are open here"))
            return False
    elif token.type in CLOSING:
        if not open_brackets:
            faults.append(Diagnostic("unmatched-bracket", f"`{token}` closes nothing", token.span,
                                     label="no bracket is open here", help="leave it out, or open a bracket before it"))
        elif OPENING[open_brackets[-1].type] != CLOSING[token.type]:
            opened = open_brackets.pop()
            around = any(OPENING[b.type] == CLOSING[token.type] for b in open_brackets)  # the inner ones were left open
            faults.append(Diagnostic(
                "unmatched-bracket", f"`{token}` does not close `{opened}`", token.span,
                notes=(f"`{opened}` was opened in line {opened.span.line}, column {opened.span.column}",),
                help=f"write `{PARTNER[str(opened)]}`" + (" before it" if around else "")))
            while around and OPENING[open_brackets.pop().type] != CLOSING[token.type]:
                pass
        else:
            open_brackets.pop()
    return len(faults) < MOST


def unbalanced(tokens: Iterable[Lexeme]) -> Faults:
    """The faults of the brackets of an expression that ends with the tokens."""
    faults, open_brackets = Faults(), list[Lexeme]()
    if all(_track(token, open_brackets, faults) for token in tokens) and open_brackets:
        faults.append(_unclosed(open_brackets[-1]))
    return faults


def too_deep(span: Span, what: str) -> Diagnostic:
    """The fault of nesting beyond `DEEPEST`."""
    return Diagnostic("too-deep", what, span, help="give parts of it names, in equations of their own")


def _unclosed(bracket: Lexeme) -> Diagnostic:
    return Diagnostic("unclosed-bracket", f"`{bracket}` is never closed", bracket.span, label="opened here",
                      help=f"write `{PARTNER[str(bracket)]}` where it ends")


def _nested(lines: Sequence[Line], owned: Sequence[list[Comment]],
            faults: Faults) -> Iterator[tuple[str, Line, list[Comment]]]:
    """Each line (as its `_NL`), and between them the blocks' starts and ends."""
    levels = [lines[0].indent] if lines else []
    opened: Line | None = None
    for line, comments in zip(lines, owned, strict=True):
        if opened is not None and _deeper(line.indent, levels[-1]):
            levels.append(line.indent)
            if len(levels) > DEEPEST:
                faults.append(too_deep(line.tokens[0].span, f"more than {DEEPEST} blocks are open here"))
                return
            yield "_INDENT", line, []
        else:
            if opened is not None and opened.opens:
                faults.append(_without_block(opened))
            while len(levels) > 1 and not line.indent.startswith(levels[-1]):
                levels.pop()
                yield "_DEDENT", line, []
            if line.indent != levels[-1]:
                faults.append(_misplaced(line, levels, lines))
        if " " in line.indent and "\t" in line.indent:
            faults.append(_mixed(line))
        if len(faults) > MOST:
            return
        yield "_NL", line, comments
        opened = line if line.opens or line.heads else None
    if opened is not None and opened.opens:
        faults.append(_without_block(opened))
    for _ in levels[1:]:
        yield "_DEDENT", lines[-1], []


def _deeper(indent: str, level: str) -> bool:
    return indent.startswith(level) and len(indent) > len(level)


def _without_block(line: Line) -> Diagnostic:
    return Diagnostic("missing-block", "nothing stands below this line's `:`", line.tokens[-1].span,
                      label="a block must follow", help="indent its equations by four blanks")


def _mixed(line: Line) -> Diagnostic:
    return Diagnostic("mixed-indentation", "this line is indented by tabs and blanks", _margin(line),
                      help="use four blanks for each level")


def _misplaced(line: Line, levels: Sequence[str], lines: Sequence[Line]) -> Diagnostic:
    """What is wrong with a line that stands at none of the open levels."""
    other = "\t" if " " in line.indent else " "
    if line.indent and any(other in earlier.indent for earlier in lines if earlier.start < line.start):
        return Diagnostic("mixed-indentation", "some lines are indented by tabs, others by blanks", _margin(line),
                          help="use four blanks for each level")
    if _deeper(line.indent, levels[-1]) and not _closes(line, lines):
        return Diagnostic("unexpected-indent", "this line is indented deeper than the one above, which opens no block",
                          _margin(line), help="a block follows a line that ends with `:`")
    span = _margin(line) if line.indent else line.tokens[0].span
    return Diagnostic("bad-dedent", "this line stands at the indentation of no open block", span,
                      help="align it with the line that begins its block")


def _closes(line: Line, lines: Sequence[Line]) -> bool:
    """Whether the line stands less deep than the one before it."""
    before = [earlier for earlier in lines if earlier.start < line.start]
    return bool(before) and len(line.indent) < len(before[-1].indent)


def _margin(line: Line) -> Span:
    """The blanks before a line."""
    first, width = line.tokens[0].span, len(line.indent)
    return Span(first.source, first.start - width, first.start, first.line, 1)
