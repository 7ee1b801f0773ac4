"""Long lines of generated text, broken as a formatter would: inside their outermost brackets, an item or a term a line.

Architecture invariant: the tokens stay the same, so the syntax tree does. Entry point: `wrapped`.
"""

from __future__ import annotations

import ast
import re
import textwrap

WIDTH = 120
NOTE = 12  # a shape may stand out so far


def wrapped(text: str) -> str:
    """Every line at most `WIDTH` wide where brackets allow; a shape stands after the closing bracket."""
    return "\n".join(part for line in text.split("\n") for part in _line(line))


def paragraph(text: str, indent: int, following: str = "") -> list[str]:
    """A docstring's line as several; `following` indents the further ones."""
    return textwrap.wrap(
        text, WIDTH - indent - 6, subsequent_indent=following, break_long_words=False, break_on_hyphens=False
    ) or [""]


def _line(line: str) -> list[str]:
    stripped = line.lstrip()
    pad = line[: len(line) - len(stripped)]
    if len(line) <= WIDTH:
        return [line]
    if stripped.startswith("# "):
        return [pad + part for part in textwrap.wrap(stripped, WIDTH - len(pad), subsequent_indent="#     ")]
    if not _is_code(stripped):
        return [line]
    code, note = _split_note(stripped)
    beside = len(f"  # {note}") if note else 0
    parts = _broken(code, len(pad), beside)
    if note:
        parts[-1] += f"  # {note}"
    return [pad + part for part in parts]


def _is_code(text: str) -> bool:
    """A statement, or the head of a block; not a part of a docstring."""
    for form in (text, f"def f():\n    {text}", text + "\n    pass"):
        try:
            return not isinstance(getattr(ast.parse(form).body[0], "value", None), ast.Constant)
        except SyntaxError:
            continue
    return False


def _strings(text: str) -> list[bool]:
    """For each character: does it stand in a string?"""
    inside, quote = [], ""
    for k, c in enumerate(text):
        inside.append(bool(quote))
        if quote:
            quote = "" if c == quote and text[k - 1] != "\\" else quote
        elif c in "\"'":
            quote = c
    return inside


def _split_note(text: str) -> tuple[str, str]:
    """Code and trailing comment."""
    inside = _strings(text)
    place = next((k for k, c in enumerate(text) if c == "#" and not inside[k]), len(text))
    return text[:place].rstrip(), text[place + 1 :].strip()


def _brackets(text: str) -> list[tuple[int, int]]:
    """Opening and closing places of the outermost brackets."""
    found, open_, inside = [], [], _strings(text)
    for k, c in enumerate(text):
        if inside[k]:
            continue
        if c in "([{":
            open_.append(k)
        elif c in ")]}" and open_:
            start = open_.pop()
            if not open_:
                found.append((start, k))
    return found


def _outside(text: str, tokens: tuple[str, ...]) -> list[int]:
    """Where one of the tokens begins outside of brackets and strings."""
    inside = _strings(text)
    for a, b in _brackets(text):
        inside[a + 1 : b] = [True] * (b - a - 1)
    return [k for k in range(len(text)) if not inside[k] and text.startswith(tokens, k)]


_HEAD = re.compile(r"^(return |[\w.\[\], +-]+ = )")
# From the loosest to the tightest: a line breaks before these.
_LEVELS = (
    (" for ",), (" if ", " else "), (" or ",), (" and ",), (" | ",), (" & ",), (" + ", " - "), (" * ", " / ", " @ "),
)  # fmt: skip


def _operators(text: str) -> list[int]:
    """The places of the loosest operators outside of brackets."""
    return next((places for level in _LEVELS if (places := _outside(text, level))), [])


def _broken(text: str, indent: int, beside: int = 0) -> list[str]:
    """One statement, or one item between brackets, over several lines; `beside` characters follow it."""
    if indent + len(text) + beside <= WIDTH + (NOTE if beside else 0):
        return [text]
    head = match.group() if (match := _HEAD.match(text)) else ""
    if head and _operators(text[len(head) :]):
        return [f"{head}(", *("    " + line for line in _terms(text[len(head) :], indent + 4)), ")"]
    pairs = [(a, b) for a, b in _brackets(text) if b - a > 1]
    if not pairs:
        return [text]
    start, end = max(pairs, key=lambda p: p[1] - p[0])
    inside = _items(text[start + 1 : end], indent + 4)
    return [text[: start + 1], *("    " + line for line in inside), *_broken(text[end:], indent)]


def _terms(text: str, indent: int) -> list[str]:
    """An expression between brackets: each further line begins with its operator."""
    places = _operators(text)
    if indent + len(text) <= WIDTH:
        return [text]
    if not places:
        return _broken(text, indent)
    cuts = [0, *(p + 1 for p in places), len(text)]
    parts = [text[a:b].strip() for a, b in zip(cuts, cuts[1:], strict=False)]
    return [line for part in parts for line in _broken(part, indent)]


def _items(text: str, indent: int) -> list[str]:
    """What stands between brackets: on one line, else an item on each."""
    if indent + len(text) <= WIDTH:
        return [text]
    commas = _outside(text, (", ",))
    if not commas or _outside(text, (" for ",)):
        return _terms(text, indent)
    cuts = [0, *(p + 2 for p in commas), len(text)]
    items = [text[a:b].strip().rstrip(",") for a, b in zip(cuts, cuts[1:], strict=False)]
    lines: list[str] = []
    for item in [i for i in items if i]:
        parts = _terms(item, indent)
        lines += [*parts[:-1], parts[-1] + ","]
    return lines


def docstring(lines: list[str], indent: int) -> list[str]:
    """Lines as a docstring at a depth of indentation, whatever they hold."""
    pad = "    " * indent
    clean = [
        "".join(c if c.isprintable() else " " for c in line).replace("\\", "\\\\").replace('"""', "'''")
        for line in lines
    ]
    clean = [part for line in clean for part in paragraph(line, 4 * indent, "    " if line.startswith("Shapes") else "")]
    if clean and clean[-1].endswith('"'):
        clean[-1] += " "
    if len(clean) == 1:
        return [f'{pad}"""{clean[0]}"""']
    return [f'{pad}"""{clean[0]}', *(f"{pad}{line}".rstrip() for line in clean[1:]), f'{pad}"""']
