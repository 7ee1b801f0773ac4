"""Values that show what others do not: where an expression orders, equals or rounds, most numbers say the same.

Entry point: `telling_numbers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node, read_names, walk

MOST = 10**6  # larger numbers stand for infinity
_ORDERING = ("lt", "le", "maximum", "minimum", "clamp", "mod")
_HALVES = tuple(Fraction(k, 2) for k in (-3, -1, 1, 3, 5))


def telling_numbers(expressions: Iterable[Node]) -> list[Fraction]:
    """Numbers beyond those that values are ordered by, those that they are equal to, and halves where one is rounded."""
    found: dict[Fraction, None] = {}
    for node in (n for e in expressions for n in walk(e)):
        if node.op == "round":
            found.update(dict.fromkeys(_HALVES))
        if any(a.dtype == "real" or read_names(a) for a in node.args):
            values = [Fraction(v) for a in node.args if (v := build.value_of(a)) is not None]
            if node.op in _ORDERING:
                found.update(dict.fromkeys(v * Fraction(5, 4) for v in values if 2 < abs(v) <= MOST))
            elif node.op in ("eq", "ne"):
                found.update(dict.fromkeys(v for v in values if abs(v) <= MOST))
    return list(found)
