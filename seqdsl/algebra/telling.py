"""Values that show what others do not: where an expression orders, equals or rounds, most numbers say the same.

Entry point: `telling_numbers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node, read_names, walk

MOST = 10**6  # larger numbers stand for infinity
DEPTH = 6  # of a sum that is taken apart
_EQUAL = ("eq", "ne")
_TWO_SIDED = ("lt", "le", "maximum", "minimum", "mod", *_EQUAL)
_AT_ZERO = ("relu", "leaky_relu", "elu", "abs", "sign", "step")
_HALVES = tuple(Fraction(k, 2) for k in (-3, -1, 1, 3, 5))


def telling_numbers(expressions: Iterable[Node]) -> list[Fraction]:
    """Numbers beyond those that values are ordered by, those that they are equal to, and halves where one is rounded."""
    found: dict[Fraction, None] = {}
    for node in (n for e in expressions for n in walk(e)):
        if node.op == "round":
            found.update(dict.fromkeys(_HALVES))
        if any(a.dtype == "real" or read_names(a) for a in node.args):
            values = [v for sides in _compared(node) for v in _meeting(*sides) if abs(v) <= MOST]
            if node.op in _EQUAL:
                found.update(dict.fromkeys(values))
            else:
                found.update(dict.fromkeys(v * Fraction(5, 4) for v in values if abs(v) > 2))
    return list(found)


def _compared(node: Node) -> list[tuple[Node, Node]]:
    """The sides that an operator compares."""
    if node.op in _TWO_SIDED:
        return [(node.args[0], node.args[1])]
    if node.op == "clamp":
        return [(node.args[0], bound) for bound in node.args[1:]]
    return [(node.args[0], build.ZERO)] if node.op in _AT_ZERO else []


def _meeting(left: Node, right: Node) -> Iterator[Fraction]:
    """Where two sides meet: the value there of each of their terms, if the other terms are 0. Sides without a number say none."""
    terms, rest = _linear(build.sub(left, right))
    if rest or build.value_of(left) is not None or build.value_of(right) is not None:
        yield from (-rest / factor for factor in terms.values() if factor)


def _linear(node: Node, depth: int = DEPTH) -> tuple[dict[Node, Fraction], Fraction]:
    """Terms with a factor each, and a constant; what is further down is a term."""
    if (value := build.value_of(node)) is not None:
        return {}, Fraction(value)
    scale = None
    if not depth:
        return {node: Fraction(1)}, Fraction(0)
    if node.op in ("add", "sub"):
        (terms, rest), (more, other) = (_linear(a, depth - 1) for a in node.args)
        sign = 1 if node.op == "add" else -1
        for term, factor in more.items():
            terms[term] = terms.get(term, Fraction(0)) + sign * factor
        return terms, rest + sign * other
    if node.op == "neg":
        scale, inner = Fraction(-1), node.args[0]
    elif node.op in ("mul", "div"):
        numbers = [build.value_of(a) for a in node.args]
        if node.op == "mul" and numbers[0] is not None:
            scale, inner = Fraction(numbers[0]), node.args[1]
        elif numbers[1]:
            scale, inner = Fraction(numbers[1]) if node.op == "mul" else 1 / Fraction(numbers[1]), node.args[0]
    if scale is None:
        return {node: Fraction(1)}, Fraction(0)
    terms, rest = _linear(inner, depth - 1)
    return {t: scale * f for t, f in terms.items()}, scale * rest
