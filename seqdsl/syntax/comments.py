"""Comments, which the grammar never sees: where each one stands, and to which line of the program it belongs.

Invariant: no comment is lost. A `Comment` is its text without `#`: who only wants the words takes it for a string.
Entry points: `read_comments`, `assign`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Place = Literal["above", "beside", "below", "gap"]

_COMMENT = re.compile(r"#[^\n]*")


class Comment(str):
    """A comment's words and where they stood.

    `above` its line (also inside a line that spans several), `beside` it, `below` it at the end of a block, or a
    `gap`: an empty line between comments that stand before a declaration. `member` names the part of a monoid it
    belongs to, for a monoid keeps the comments of `identity`, `lift`, `combine` and `project` in its `doc`.
    """

    place: Place
    member: str

    def __new__(cls, text: str, place: Place, member: str = "") -> Comment:
        """A comment; `text` is what follows `#`, one blank dropped."""
        comment = super().__new__(cls, text)
        comment.place, comment.member = place, member
        return comment

    def of(self, member: str) -> Comment:
        """The same comment, belonging to a member of a monoid."""
        return Comment(self, self.place, self.member or member)


@dataclass(frozen=True)
class Remark:
    """A comment as it stands in the text: `indent` is what precedes it on its line, None beside code."""

    text: str
    start: int
    line: int
    indent: str | None


class Extent(Protocol):
    """What `assign` asks of a logical line of the program."""

    @property
    def indent(self) -> str: ...
    @property
    def top(self) -> bool: ...
    @property
    def start(self) -> int: ...
    @property
    def first_line(self) -> int: ...
    @property
    def last_line(self) -> int: ...
    @property
    def opens(self) -> bool: ...


def read_comments(text: str) -> list[Remark]:
    """Every comment of a text. The language has no strings, so `#` always starts one."""
    found, line, scanned = [], 1, 0
    for match in _COMMENT.finditer(text):
        start = match.start()
        line, scanned = line + text.count("\n", scanned, start), start
        before = text[text.rfind("\n", 0, start) + 1 : start]
        words = match.group()[1:].rstrip()
        words = words[1:] if words.startswith(" ") else words
        found.append(Remark(words, start, line, None if before.strip() else before))
    return found


def assign(remarks: Sequence[Remark], lines: Sequence[Extent]) -> tuple[list[list[Comment]], list[Comment]]:
    """The comments of each logical line, and those that follow the last one.

    A comment before a line is above it; but where a block ends, one that is indented deeper than what follows ends it.
    """
    owned: list[list[Comment]] = [[] for _ in lines]
    waiting: list[Remark] = []  # before line `at`, in its own right
    innermost: list[int] = []  # the last line and those of the blocks around it, outermost first
    at = 0
    for remark in remarks:
        while at < len(lines) and lines[at].start <= remark.start:
            owned[at] += _above(waiting, lines[at])
            while innermost and len(lines[innermost[-1]].indent) >= len(lines[at].indent):
                innermost.pop()
            innermost.append(at)
            waiting, at = [], at + 1
        previous = lines[at - 1] if at else None
        if previous is not None and remark.line <= previous.last_line:
            beside = remark.indent is None and remark.line == previous.last_line
            owned[at - 1].append(Comment(remark.text, "beside" if beside else "above"))
        elif previous is not None and _ends_block(remark, previous, lines[at % len(lines)]):
            owned[_block_end(remark, lines, innermost, at)].append(Comment(remark.text, "below"))
        else:
            waiting.append(remark)
    if at < len(lines):
        owned[at] += _above(waiting, lines[at])
        waiting = []
    return owned, _with_gaps(waiting)


def _ends_block(remark: Remark, previous: Extent, following: Extent) -> bool:
    """Whether a comment ends the block before it; after the last line `following` is the first, at the outer margin."""
    if previous.opens or previous.top or remark.indent is None:
        return False
    return len(following.indent) < min(len(remark.indent), len(previous.indent))


def _block_end(remark: Remark, lines: Sequence[Extent], innermost: Sequence[int], following: int) -> int:
    """The statement behind which a comment stands: the last one that is not indented deeper, in a block that ends."""
    outside = len(lines[following % len(lines)].indent)
    for index in reversed(innermost):
        if outside < len(lines[index].indent) <= len(remark.indent or ""):
            return index
    return following - 1


def _above(waiting: Sequence[Remark], line: Extent) -> list[Comment]:
    if not line.top:
        return [Comment(remark.text, "above") for remark in waiting]
    found = _with_gaps(waiting)
    if waiting and line.first_line > waiting[-1].line + 1:
        found.append(Comment("", "gap"))
    return found


def _with_gaps(waiting: Sequence[Remark]) -> list[Comment]:
    found: list[Comment] = []
    for index, remark in enumerate(waiting):
        if index and remark.line > waiting[index - 1].line + 1:
            found.append(Comment("", "gap"))
        found.append(Comment(remark.text, "above"))
    return found
