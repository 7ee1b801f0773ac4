"""The codes of everything that can be wrong with a text before it means anything, for `seqc explain CODE`.

A row is an explanation and a smallest text with that one fault; bytes that are not UTF-8 are written as surrogates, and
a fault that needs a file or a megabyte has no text. Entry point: `SYNTAX`.
"""

from __future__ import annotations

from typing import NamedTuple

from seqdsl.syntax.layout import DEEPEST, LONGEST
from seqdsl.syntax.source import LARGEST


class Fault(NamedTuple):
    """Why a text is refused, and a smallest one that is."""

    explanation: str
    example: str


def _body(line: str) -> str:
    """A mixer that consists of one line."""
    return f"mixer f(x[t,c]) -> y[t,c]:\n    {line}\n"


def _monoid(*lines: str) -> str:
    return "monoid m(x):\n" + "".join(f"    {line}\n" for line in lines)


SYNTAX: dict[str, Fault] = {
    # Files and characters
    "file-not-found": Fault(
        "There is no file of this name, or it is a folder, or it may not be read.",
        ""),
    "file-too-large": Fault(
        f"A text may have {LARGEST} bytes. Split it: mixers are imported by name from sibling files.",
        ""),
    "not-utf8": Fault(
        "A file is UTF-8. The message names the first byte that is not.",
        "# caf\udce9\n"),
    "nul-byte": Fault(
        "A NUL character: the file is no text.",
        "mixer\0"),
    "unexpected-character": Fault(
        "Outside comments a text is of ASCII letters, digits, blanks and the signs of the language. "
        "Characters that look like these, or are used for them in print, are refused with what to write "
        "instead: `-` for a minus sign, `*` for a multiplication sign, `alpha` for the Greek letter. A brace "
        "stands directly behind its name: `x{l+1}`.",
        _body("y[t,c] = x × 2")),
    "host-language": Fault(
        "There are no strings, no decorators, no modules, no methods and no escape to another language: a "
        "file from a stranger is parsed, checked and compiled with nothing of it being executed (rule 38). "
        "Functions have plain names, and a point reads a field of a monoid's element.",
        _body("y[t,c] = torch.exp(x)")),
    "name-too-long": Fault(
        "A name has at most 128 characters. Mixers' names become those of files, and the other ones stand in the lines of "
        "generated modules.",
        _body("y[t,c] = 2 * " + "long_" * 26 + "x")),
    "bad-number": Fault(
        "Numbers are decimal, with digits on both sides of a point: `2`, `0.5`, `1e-6`, and `1i` for "
        "imaginary ones. They do not start with a superfluous zero, have no `_`, and do not touch a word: a "
        "product is `2 * x`.",
        _body("y[t,c] = .5 * x")),
    # Lines and blocks
    "mixed-indentation": Fault(
        "Lines that belong to one block are indented by the same characters: tabs or blanks, not both.",
        "mixer f(x[t]) -> y[t]:\n    y[t] = x\n\tz[t] = x\n"),
    "unexpected-indent": Fault(
        "A line that is indented deeper than the one above continues it, and only below a line that ends with "
        "`:` begins a block. So an equation that is indented too deep is read as the end of the equation "
        "before it.",
        "mixer f(x[t]) -> y[t]:\n    z[t] = x\n        y[t] = z\n"),
    "bad-dedent": Fault(
        "A line that is indented less than the one above stands where one of the open blocks stands.",
        "mixer f(x[t]) -> y[t]:\n    y[t] = x\n  z[t] = x\n"),
    "missing-block": Fault(
        "Below a line that ends with `:` stands a block, indented deeper, of at least one line; nothing "
        "stands beside the `:`.",
        "mixer f(x[t]) -> y[t]:\n"),
    "missing-colon": Fault(
        "The header of a block ends with `:`.",
        "mixer f(x[t]) -> y[t]\n    y[t] = x\n"),
    "line-too-long": Fault(
        f"A line, with its continuations, may have {LONGEST} words and signs.",
        _body("y[t,c] = x" + " + x" * (LONGEST // 2))),
    "too-deep": Fault(
        f"Brackets, blocks and operators may be nested {DEEPEST} levels deep; in a chain `a + b + c` each "
        "operator is a level. Give parts names, in equations of their own.",
        _body("y[t,c] = " + "(" * (DEEPEST + 1) + "x" + ")" * (DEEPEST + 1))),
    # Brackets
    "unclosed-bracket": Fault(
        "A bracket is not closed, or not before the next equation or declaration begins; inside brackets line "
        "ends count as blanks.",
        _body("y[t,c] = exp(x")),
    "unmatched-bracket": Fault(
        "A bracket closes nothing, or another kind of bracket than was opened last.",
        _body("y[t,c] = exp(x]")),
    "empty-brackets": Fault(
        "In an expression brackets hold something: a scalar and a whole tensor are read by their bare name. "
        "Only a left side may say that it has no index, `best[] = ..`.",
        _body("y[t,c] = x[]")),
    # Words
    "unexpected-token": Fault(
        "Here stands something that cannot stand here. The message says what could; most often an operator is "
        "missing, for a product is written `a * b`.",
        _body("y[t,c] = x x")),
    "unexpected-end": Fault(
        "A line ends, or the braces of a name do, where something must follow.",
        _body("y[t,c] = x +")),
    "keyword-as-name": Fault(
        "Keywords are reserved everywhere (rule 37): import from mixer fn monoid index over param const claim "
        "when for in and or not sum mean int bool complex real per.",
        _body("index[t,c] = x")),
    "unknown-statement": Fault(
        "A line of a block is an equation, `index`, `param`, `const`, `claim` or `for`. There is no `if`: a "
        "choice by value is `where(b, x, y)`, a variant is another mixer (rule 28). There is no `while` and "
        "no `scan`: an equation that reads itself is a recurrence.",
        _body("if x > 0:\n        y[t,c] = x")),
    "statement-outside": Fault(
        "Only `import`, `mixer`, `fn` and `monoid` stand at the outer margin; equations stand in their "
        "blocks.",
        "y[t] = x\n"),
    "nested-declaration": Fault(
        "A mixer, fn or monoid stands at the outer margin, never inside another.",
        _body("mixer g(x) -> y:\n        y = x")),
    "import-path": Fault(
        "An import names a file without its folder and without `.seq`: a sibling, else one of the library "
        "(rule 37).",
        "import gla from library.gla\n"),
    # Headers
    "missing-arrow": Fault(
        "A mixer says what it gives, `-> y[t,c]:`; a fn says so too, or is one expression after `=`.",
        "mixer f(x[t]):\n    y[t] = x\n"),
    "type-on-output": Fault(
        "Inputs and params may have types; those of outputs follow from their equations.",
        "mixer f(x[t]) -> y[t]: int:\n    y[t] = x\n"),
    "unknown-type": Fault(
        "The types are `int`, `bool`, `complex` and `real`, which is the default (rule 32). Precision is "
        "chosen when the code is compiled.",
        "mixer f(x[t]: float) -> y[t]:\n    y[t] = x\n"),
    "not-an-index": Fault(
        "Headers and left sides declare: their brackets hold indices, `t`, and indices with their size, `h: "
        "H`; a left side also constant points, `-1`, `0`, `|t|`. Arithmetic stands on the right: `y[t] = "
        "x[t-1]`.",
        _body("y[t+1,c] = x")),
    "setting-before-semicolon": Fault(
        "Arguments come by position; options of a header and settings of a call stand after `;` (rules 8 and "
        "23).",
        _body("y[t,c] = rms_norm[c](x, eps = 1e-6)")),
    # Expressions
    "sum-after-division": Fault(
        "`sum` and `mean` take the rest of their product. After a division that would be ambiguous, so there "
        "their body is one factor and nothing may follow: parenthesise `(a / sum[s] b) * c` or `a / (sum[s] b "
        "* c)` (rule 13).",
        _body("y[t,c] = x / sum[t] x * 2")),
    "sum-in-power": Fault(
        "A sum is no operand of `^`: parenthesise it.",
        _body("y[t,c] = 2^sum[c] x")),
    "sum-without-index": Fault(
        "`sum` and `mean` are written before what they reduce, with the index in brackets: `sum[d] q * k` "
        "(rule 13).",
        _body("y[t,c] = sum(x)")),
    "missing-arguments": Fault(
        "Every operation along an axis but `sum` and `mean` is a call, `prod[s | s < t](x)`: brackets with an "
        "arrow, a guard or a size belong to an operation, whose body stands in parentheses (rules 13 and 16).",
        _body("y[t,c] = prod[c] x")),
    "assignment-in-expression": Fault(
        "`=` defines, `==` compares; an equation has one `=`.",
        _body("claim y = x")),
    "equation-sign": Fault(
        "An equation is written with `=`. Nothing is ever changed, so there is no `+=` and no `:=`: what was "
        "before is read by its index, `S[t] = S[t-1] + x`.",
        _body("y[t,c] += x")),
    "misplaced-tuple": Fault(
        "A tuple is the whole value of a `const` or `param`, where it lists the values along the one index, "
        "or of a monoid's `identity` or `lift` (rules 29 and 34).",
        _body("y[t,c] = 2 * (x, x)")),
    # Monoids
    "unknown-member": Fault(
        "A monoid has the members `identity`, `lift`, `combine`, `project`, and lines `param` and `claim` "
        "(rule 34).",
        _monoid("start = (0)", "combine(a, b):", "    x = a.x + b.x")),
    "duplicate-member": Fault(
        "Each member of a monoid is given at most once.",
        _monoid("combine(a, b):", "    x = a.x", "combine(a, b):", "    x = b.x")),
    "missing-combine": Fault(
        "A monoid says how two elements combine: `combine(a, b):` and an equation for each field.",
        _monoid("identity = (0)")),
    "malformed-member": Fault(
        "The shapes are `identity = (..)`, `lift(args) = (..)`, `combine(a, b):` with two bare names, and "
        "`project -> y[..]:` with one output.",
        _monoid("combine(a):", "    x = a.x")),
}
