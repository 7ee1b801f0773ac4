"""Characters that no text of the language contains outside comments, and what their writer meant.

Entry points: `stray_characters`, before lexing, and `stray_brace`, for what the lexer cannot read.
"""

from __future__ import annotations

import re
import unicodedata

from seqdsl.diagnostics import Diagnostic, Faults, Source, Span

MOST = 20  # reported at once
LONGEST_NAME = 128  # characters: names become those of files, and stand in every line of generated text

_STRAY = re.compile(r"""#[^\n]*|(""" r'"{3}(?:[^"]|"(?!""))*"{3}|"[^"\n]*"' r"""|'[^'\n]*'|`[^`\n]*`"""
                    r"""|&&|[^-A-Za-z0-9_ \t\r\n+*/%^=<>!()\[\]{}|,;:.#]|!(?!=))""")
# Comments are copied beside generated code: what ends a line there, or turns the reading order, must not hide in one.
_CONTROL = re.compile("([\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n))")
_LONG = re.compile(rf"#[^\n]*|\b([A-Za-z_][A-Za-z0-9_]{{{LONGEST_NAME},}})")

# What to write instead. Letters of other alphabets go by their Unicode name, `GREEK SMALL LETTER ALPHA` to `alpha`.
INSTEAD = {
    **dict.fromkeys("−–—‐‑﹣－", "-"), **dict.fromkeys("×·⋅∗✕⊙∘＊", "*"), **dict.fromkeys("÷∕⁄／", "/"),
    **dict.fromkeys("≤⩽≦", "<="), **dict.fromkeys("≥⩾≧", ">="), "≠": "!=", **dict.fromkeys("→⟶⇒", "->"),
    **dict.fromkeys("≔＝", "="), "≡": "==", **dict.fromkeys("∧&", "and"), "∨": "or", **dict.fromkeys("¬!~", "not"),
    "∞": "inf", **dict.fromkeys("∑Σ", "sum[..]"), "∏": "prod[..](..)", "√": "sqrt(..)", "²": "^2", "³": "^3",
    "∇": "grad[..](..)", "（": "(", "）": ")", "［": "[", "］": "]", "，": ",", "：": ":", "；": ";",
    **dict.fromkeys("∣｜", "|"), "…": "..", "π": "pi", "½": "1/2", "?": "where(b, x, y)",
}
_HOST = frozenset("\"'`$@\\“”‘’")


def stray_characters(source: Source) -> Faults:
    """The control characters, or else every character outside comments that is none of the language's, or else every name
    that is too long, up to `MOST`."""
    return _found(source, _CONTROL) or _found(source, _STRAY) or _found(source, _LONG)


def _found(source: Source, pattern: re.Pattern[str]) -> Faults:
    faults = Faults()
    line, scanned = 1, 0
    for match in (match for match in pattern.finditer(source.text) if match.group(1)):
        start = match.start()
        line, scanned = line + source.text.count("\n", scanned, start), start
        column = start - source.text.rfind("\n", 0, start)
        faults.append(_stray(match.group()[0], Span(source, start, match.end(), line, column)))
        if len(faults) == MOST:
            break
    return faults


def _stray(character: str, span: Span) -> Diagnostic:
    if character.isascii() and (character.isalnum() or character == "_"):
        return Diagnostic("name-too-long", f"a name of {span.end - span.start} characters", span,
                          help=f"write at most {LONGEST_NAME}")
    if character == "\0":
        return Diagnostic("nul-byte", "a NUL character: this is not a text", span)
    if "\ud800" <= character <= "\udfff":
        return Diagnostic("not-utf8", f"U+{ord(character):04X} is half a character: the text is not Unicode", span)
    if character == "\r":
        return Diagnostic("unexpected-character", "a carriage return without a line feed", span,
                          help="save the file with Unix or Windows line ends")
    if character == "@":
        return Diagnostic("host-language", "`@` is no operator: a product of matrices names the index it sums over", span,
                          help="write `sum[d] q * k`")
    if character in _HOST:
        docstring = span.text.startswith('"""')
        return Diagnostic("host-language", f"`{character}`: there are no strings and no escapes to another language",
                          span, help="a comment begins with `#`, and documents the mixer that it stands above" if docstring
                          else "write the computation as equations; see LANGUAGE rule 38")
    code, name = f"U+{ord(character):04X}", unicodedata.name(character, "")
    shown = f"`{character}`" if character.isprintable() else code
    what = "" if not name or ord(character) < 128 else f" ({code} {name})" if character.isprintable() else f" {name}"
    return Diagnostic("unexpected-character", f"{shown}{what} is no character of the language", span,
                      help=_instead(character, name))


def _instead(character: str, name: str) -> str:
    if character in INSTEAD:
        return f"write `{INSTEAD[character]}`"
    if character.isspace() or unicodedata.category(character) in ("Zs", "Cf"):
        return "write a plain blank, or nothing"
    letter = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (?:FINAL )?(\w+)", name)
    if letter:
        word = letter.group(2).lower().replace("lamda", "lambda")
        return f"write `{word if letter.group(1) == 'SMALL' else word.capitalize()}`"
    plain = unicodedata.normalize("NFKC", character)
    if plain != character and plain.isascii() and plain.strip():
        return f"write `{plain}`"
    return "names are of ASCII letters, digits and `_`; everything may stand in a comment"


def stray_brace(text: str, start: int, place: Span) -> Diagnostic:
    """The fault of a brace outside the names: all other characters that could not be read are found before."""
    line = text.count("\n", 0, start)
    column = start - text.rfind("\n", 0, start)
    span = Span(place.source, place.start + start, place.start + start + 1, place.line + line,
                column if line else place.column + column - 1)
    if text[start] == "}":
        return Diagnostic("unmatched-bracket", "`}` closes nothing", span, label="no brace is open here")
    rest = re.split(r"[\n#]", text[start + 1 :], maxsplit=1)[0]
    if "}" not in rest:
        return Diagnostic("unclosed-bracket", "`{` is not closed in its line", span,
                          help="a numbered name is one word, `x{l+1}`")
    if "{" in rest.split("}")[0]:
        return Diagnostic("unexpected-character", "braces in a name do not nest", span,
                          help="number by two values: `x{l}_{k}`")
    return Diagnostic("unexpected-character", "`{` does not follow a name", span,
                      help="a numbered name is one word, `x{l+1}`: no blank before the brace")
