"""Is one integer expression earlier than another? Bounds from subscripts and from guard facts (rules 11 and 18).

Expressions are put in linear form, a constant plus integer multiples of terms. A few rules bound what is not linear:
`e // m * m` lies in [e - m + 1, e] and `e % m` in [0, m - 1] for a positive m, `e // 4` in [(e - 3) / 4, e / 4], an
index in [0, size - 1]. Anything else is unknown, and unknown is never taken for proved.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.system import System

Linear = Mapping[Node | None, Fraction]  # None is the constant term
_REMEMBERED = 20_000  # terms and questions: the same ones come again with every rewriting of a system


@lru_cache(_REMEMBERED)
def linear(node: Node) -> Linear:
    """The expression as constant + sum of coefficient * term; terms are opaque nodes."""
    value = build.value_of(node)
    if value is not None:
        return {None: Fraction(value)}
    if node.op in ("add", "sub"):
        return _plus(linear(node.args[0]), linear(node.args[1]), 1 if node.op == "add" else -1)
    if node.op == "neg":
        return _plus({}, linear(node.args[0]), -1)
    if node.op == "mul":
        a, b = (linear(x) for x in node.args)
        for one, other in ((a, b), (b, a)):
            if set(one) <= {None}:
                return _plus({}, other, one.get(None, Fraction(0)))
    return {node: Fraction(1)}


def _plus(a: Linear, b: Linear, factor: Fraction | int) -> Linear:
    result = dict(a)
    for term, coefficient in b.items():
        scaled = coefficient if factor == 1 else -coefficient if factor == -1 else coefficient * factor
        result[term] = result[term] + scaled if term in result else scaled
    return {t: c for t, c in result.items() if c}


def written(form: Linear, more: int = 0) -> Node:
    """A form of whole coefficients, and a number more, as an expression; what is positive comes first."""
    constant = int(form.get(None, 0)) + more
    total = build.ZERO
    for term, factor in sorted(((t, int(c)) for t, c in form.items() if t is not None), key=lambda pair: pair[1] < 0):
        part = build.mul(build.const(abs(factor)), term)
        total = build.add(total, part) if factor > 0 else build.sub(total, part)
    return build.add(total, build.const(constant)) if constant >= 0 else build.sub(total, build.const(-constant))


@lru_cache(_REMEMBERED)
def difference(a: Node, b: Node) -> Linear:
    """a - b in linear form."""
    return _plus(linear(a), linear(b), -1)


Lengths = Mapping[str, Node | None]  # the size of an index, where a formula gives it


def upper_bound(system: System, form: Linear, facts: tuple[Node, ...]) -> Fraction | None:
    """A constant that the form never exceeds, or None where none was found."""
    nodes = (*facts, *(term for term in form if term is not None))
    names = frozenset().union(*(n.free for n in nodes))
    return _upper_bound({n: system.index(n).size for n in names}, form, facts)


def _upper_bound(sizes: Lengths, form: Linear, facts: tuple[Node, ...], depth: int = 3) -> Fraction | None:
    if set(form) <= {None}:
        return form.get(None, Fraction(0))
    if depth == 0:
        return None
    options: list[Fraction] = []
    for replaced in _weaker(sizes, form, facts):
        found = _upper_bound(sizes, replaced, facts, depth - 1)
        if found is not None:
            options.append(found)
    return min(options, default=None)


def _weaker(sizes: Lengths, form: Linear, facts: tuple[Node, ...]) -> list[Linear]:
    """Forms that are nowhere smaller: one term bounded by a rule, or a fact added."""
    found = []
    for term, c in form.items():
        if term is None:
            continue
        for bound in _term_bounds(sizes, term, upper=c > 0):
            found.append(_plus({t: k for t, k in form.items() if t is not term}, bound, c))
    for fact in facts:  # fact a < b means 0 <= b - a - 1, which may be added with any positive factor
        for slack in _slacks(fact):
            for term, c in slack.items():
                if term is not None and term in form and (c > 0) != (form[term] > 0):
                    found.append(_plus(form, slack, -form[term] / c))
                    break
    return found


def _slacks(fact: Node) -> list[Linear]:
    """Non-negative forms that a fact states."""
    if fact.op not in ("lt", "le", "eq", "ne"):
        return []
    a, b = fact.args
    if a.dtype != "int" or b.dtype != "int":
        return []
    if fact.op == "ne":  # an index that is not 0 is at least 1
        index, other = (a, b) if a.op == "index" else (b, a)
        return [_plus(linear(index), {None: Fraction(1)}, -1)] if index.op == "index" and other is build.ZERO else []
    gap = difference(b, a)
    if fact.op == "lt":
        return [_plus(gap, {None: Fraction(1)}, -1)]
    return [gap] if fact.op == "le" else [gap, _plus({}, gap, -1)]


def _term_bounds(sizes: Lengths, term: Node, *, upper: bool) -> list[Linear]:
    """Linear forms that bound a term from above (or from below)."""
    if term.op == "mul" and term.args[0].op == "floor_div" and term.args[0].args[1] is term.args[1]:
        value, m = term.args[0].args  # e // m * m
        if not _is_length(m):
            return []
        return [linear(value)] if upper else [_plus(_plus(linear(value), linear(m), -1), {None: Fraction(1)}, 1)]
    divisor = build.value_of(term.args[1]) if term.op == "floor_div" else None
    if divisor is not None and divisor > 0:  # e // 4
        least = _plus(linear(term.args[0]), {None: divisor - Fraction(1)}, -1)
        return [_plus({}, linear(term.args[0]) if upper else least, 1 / Fraction(divisor))]
    if term.op == "index":
        top = _plus(linear(build.size(str(term.attr))), {None: Fraction(1)}, -1)
        size = sizes[str(term.attr)]
        tops = [top] if size is None else [_plus(linear(size), {None: Fraction(1)}, -1), top]
        return tops if upper else [{}]
    if term.op == "mod" and _is_length(term.args[1]):
        return [_plus(linear(term.args[1]), {None: Fraction(1)}, -1)] if upper else [{}]
    if term.op == "size":
        return [] if upper else [{}]
    return []  # of an option, too: it may be 0 (a shift, a halo), and sizes of axes are bounded through their index


def _is_length(node: Node) -> bool:
    """Is it positive wherever something is divided by it: a number that is, a length, or a product of such?"""
    if node.op == "mul":
        return all(_is_length(a) for a in node.args)
    value = build.value_of(node)
    return value > 0 if value is not None else node.op in ("size", "option")


def refuted(system: System, condition: Node, facts: tuple[Node, ...]) -> bool:
    """Is it shown that a condition holds nowhere where the facts hold?"""
    if condition.op == "or":
        return all(refuted(system, c, facts) for c in condition.args)
    tops = [upper_bound(system, slack, facts) for c in build.conjuncts(condition) for slack in _slacks(c)]
    return any(top is not None and top < 0 for top in tops)


def distance(system: System, own: str, subscript: Node, facts: tuple[Node, ...]) -> int | str:
    """How much earlier than index `own` the subscript is: see `dependence`."""
    ahead = difference(subscript, build.index(own))  # negative where the read is earlier
    if set(ahead) <= {None}:
        return -int(ahead.get(None, Fraction(0)))
    names = subscript.free.union((own,), *(fact.free for fact in facts))
    return _sign_of(subscript, own, facts, tuple((n, system.index(n).size) for n in sorted(names)))


@lru_cache(_REMEMBERED)
def _sign_of(subscript: Node, own: str, facts: tuple[Node, ...], sizes: tuple[tuple[str, Node | None], ...]) -> str:
    """Of subscript - own, in words. All that it takes of a system are the sizes of the indices."""
    ahead, known = difference(subscript, build.index(own)), dict(sizes)
    top = _upper_bound(known, ahead, facts)
    if top is not None and top <= 0:
        return "+" if top < 0 else "0+"
    bottom = _upper_bound(known, _plus({}, ahead, -1), facts)
    if bottom is not None and bottom <= 0:
        return "-" if bottom < 0 else "0-"
    return "?"
