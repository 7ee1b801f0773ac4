"""Spans, diagnostics and `SeqError`, the only exception a user's mistake may raise.

A diagnostic's code is a stable kebab-case noun phrase of the fault, and must be a row of `codes.CODES`.
Anything else that escapes the compiler is a bug of the compiler.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """A text and the name under which messages cite it (a path, or `<text>`)."""

    name: str
    text: str = field(repr=False)

    def line(self, number: int) -> str:
        """Line `number`, counted from 1, without its line end."""
        lines = self.text.split("\n")
        return lines[number - 1].rstrip("\r") if 0 < number <= len(lines) else ""


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of a source; `line` and `column` of the start, counted from 1."""

    source: Source = field(repr=False)
    start: int
    end: int
    line: int
    column: int

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other`."""
        return Span(self.source, self.start, max(self.end, other.end), self.line, self.column)

    @property
    def text(self) -> str:
        """The characters the span covers."""
        return self.source.text[self.start : self.end]


@dataclass(frozen=True)
class Diagnostic:
    """One fault: `message` stands alone, `label` says what is at the span, `notes` are evidence, `help` proposes."""

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    notes: tuple[str, ...] = ()
    help: str = ""

    def to_dict(self) -> dict[str, object]:
        """Plain data for `--json`; line and column count from 1."""
        where = (
            {}
            if self.span is None
            else {
                "file": self.span.source.name,
                "line": self.span.line,
                "column": self.span.column,
                "length": self.span.end - self.span.start,
            }
        )
        return {
            "code": self.code,
            "message": self.message,
            **where,
            "label": self.label,
            "notes": list(self.notes),
            "help": self.help,
        }


class SeqError(Exception):
    """A user's mistake, or several of one phase, sorted by place.

    `SeqError("stray-index", "...", span)` for one; `SeqError.of(diagnostics)` for all of a phase.
    """

    def __init__(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        label: str = "",
        notes: Sequence[str] = (),
        help: str = "",
    ) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = (Diagnostic(code, message, span, label, tuple(notes), help),)
        super().__init__(f"{code}: {message}")

    @classmethod
    def of(cls, diagnostics: Iterable[Diagnostic]) -> SeqError:
        """One exception for all faults of a phase, in the order of the text, each once."""
        found = sorted(dict.fromkeys(diagnostics), key=lambda d: (d.span.start if d.span else -1, d.code))
        error = cls(found[0].code, found[0].message, found[0].span)
        error.diagnostics = tuple(found)
        return error

    @property
    def code(self) -> str:
        """The code of the first fault."""
        return self.diagnostics[0].code

    def __str__(self) -> str:
        from seqdsl.diagnostics.render import render

        return "\n".join(render(d) for d in self.diagnostics)


class Faults(list[Diagnostic]):
    """Faults collected during a phase; `check()` raises them together."""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the faults raised inside, and go on."""
        try:
            yield
        except SeqError as error:
            self.merge(error.diagnostics)

    def merge(self, more: Iterable[Diagnostic]) -> None:
        """Keep them too; what was said in the same words, or of the same place, is not said again."""
        said = {(d.code, d.message) for d in self}
        places = {(d.span.source.name, d.span.start) for d in self if d.span is not None}
        for d in more:
            here = (d.span.source.name, d.span.start) if d.span is not None else None
            if (d.code, d.message) not in said and here not in places:
                self.append(d)

    def check(self) -> None:
        """Raise `SeqError` with every fault collected so far, if there is one."""
        if self:
            raise SeqError.of(self)
