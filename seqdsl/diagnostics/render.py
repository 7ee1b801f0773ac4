"""The text of a diagnostic: header, place, source line with carets, notes, help (STYLE part 1)."""

from __future__ import annotations

from seqdsl.diagnostics.errors import Diagnostic

_WIDEST = 160  # characters of a source line that are shown


def render(diagnostic: Diagnostic) -> str:
    """Plain text, no colour; a line of any length is cut around the fault."""
    lines = [f"error[{diagnostic.code}]: {diagnostic.message}"]
    if diagnostic.span is not None:
        lines += _place(diagnostic)
    margin = "  " if diagnostic.span is None else " " * (len(str(diagnostic.span.line)) + 1)
    lines += [f"{margin}= note: {note}" for note in diagnostic.notes]
    if diagnostic.help:
        lines.append(f"{margin}= help: {diagnostic.help}")
    return "\n".join(lines)


def _place(diagnostic: Diagnostic) -> list[str]:
    span = diagnostic.span
    assert span is not None
    text = span.source.line(span.line).replace("\t", " ").replace("\0", "?")
    start, length = span.column - 1, max(1, min(span.end - span.start, len(text) - span.column + 1))
    if len(text) > _WIDEST:
        cut = max(0, start - _WIDEST // 3)
        text, start = text[cut : cut + _WIDEST], start - cut
        length = max(1, min(length, len(text) - start))
    number = str(span.line)
    bar = " " * len(number) + " |"
    label = f" {diagnostic.label}" if diagnostic.label else ""
    return [
        f"{' ' * len(number)}--> {span.source.name}:{span.line}:{span.column}",
        bar,
        f"{number} | {text}",
        f"{bar} {' ' * start}{'^' * length}{label}",
    ]
