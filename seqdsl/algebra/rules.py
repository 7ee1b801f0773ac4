"""Rules of the canonical form for single operators: powers, exp and log, choices, maxima, complex parts, linear maps.

Each row takes the forms and a node and gives its terms; the law stands beside it. exp(a + b) = exp(a) exp(b), and
exp(log p) = p; log pulls real exponentials out; a maximum absorbs what is added to it, then gives back what all of its
operands share; `re` and `im` are linear over the reals; transforms are linear.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import isqrt
from typing import TYPE_CHECKING

from seqdsl.algebra.brackets import complement, condition_node
from seqdsl.algebra.poly import (
    ONE,
    Monomial,
    Poly,
    Terms,
    accumulate,
    atom,
    inner_node,
    key,
    number,
    ordered,
)
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound, make, remake

if TYPE_CHECKING:
    from seqdsl.algebra.canon import Canon

ZERO = Fraction(0)
HALF = Fraction(1, 2)
LONGEST = 400  # factors, and monomials, of a power that is multiplied out
_INF = build.const("inf")
_I = build.const("i")


def terms_of(poly: Poly) -> Terms:
    """The terms of a canonical sum."""
    return {(m.factors, m.bound): m.coefficient for m in poly.terms}


def _is_positive(factor: Node) -> bool:
    """Factors that are never negative and never 0 where a real exponent makes sense."""
    if factor.op == "exp" or factor.op == "pow":
        return factor.dtype != "complex" and (factor.op == "exp" or (build.value_of(factor.args[0]) or 0) > 0)
    return factor.op == "size"


def _content(poly: Poly, wanted: Callable[[Node], bool]) -> dict[Node, Fraction]:
    """Common factors: the least exponent over all monomials (0 where absent), of factors free of bound indices."""
    found: dict[Node, Fraction] = {}
    for k, m in enumerate(poly.terms):
        mine = {f: e for f, e in m.factors if wanted(f) and not f.free & frozenset(m.bound)}
        for f in {*found, *mine}:
            before = found.get(f, ZERO if k else None)
            now = mine.get(f, ZERO)
            found[f] = now if before is None else min(before, now)
    return {f: e for f, e in found.items() if e}


def _without(forms: Canon, poly: Poly, content: dict[Node, Fraction], scale: Fraction) -> Poly:
    result: Terms = {}
    for m in poly.terms:
        merged = dict(m.factors)
        for f, e in content.items():
            merged[f] = merged.get(f, ZERO) - e
        accumulate(result, {(ordered(merged), m.bound): m.coefficient / scale})
    return forms.settle(result)


def inverse(forms: Canon, poly: Poly, exponent: Fraction) -> Terms:
    """poly ^ -exponent: a monomial is inverted, a sum becomes one factor with its common factors pulled out."""
    if not poly.terms:
        return atom(build.ZERO, -exponent)
    content = _content(poly, lambda f: f.dtype != "bool")
    lead = poly.terms[0].coefficient
    rest = _without(forms, poly, content, lead)
    result = forms.reduced({f: -e * exponent for f, e in content.items()}, ())
    if rest.constant != 1:
        scale = rest.terms[0].coefficient  # division may have changed the order of the terms
        rest = _without(forms, rest, {}, scale)
        lead *= scale
        if rest.constant != 1:
            result = forms.multiply(result, atom(inner_node(rest), -exponent))
    return {k: c / lead ** int(exponent) for k, c in result.items()}


def divided(forms: Canon, a: Node, b: Node) -> Terms:
    """a / b; (c p) / p = c"""
    below = forms.poly(b)
    if len(below.terms) > 1:
        above = forms.poly(a)
        if [(m.factors, m.bound) for m in above.terms] == [(m.factors, m.bound) for m in below.terms]:
            ratios = {x.coefficient / y.coefficient for x, y in zip(above.terms, below.terms, strict=True)}
            if len(ratios) == 1:
                return number(ratios.pop())
    return forms.multiply(forms.terms(a), inverse(forms, below, ONE))


def _exp(forms: Canon, node: Node) -> Terms:
    x = node.args[0]
    poly = forms.poly(x)
    if forms.has_infinity(x):
        first = poly.terms[0]
        gone = len(poly.terms) == 1 and first.factors == ((_INF, ONE),) and first.coefficient < 0
        return {} if gone else atom(make("exp", inner_node(poly)))  # exp(-inf) = 0
    if forms.states and not forms.is_live(node) and len(poly.terms) > 4:
        return atom(node)
    return forms.times(_exp_of(forms, m) for m in poly.terms)


def _exp_of(forms: Canon, m: Monomial) -> Terms:
    (factor, exponent) = m.factors[0] if len(m.factors) == 1 and not m.bound else (build.ONE, ZERO)
    if factor.op == "log" and exponent == 1 and m.coefficient.denominator == 1:
        return forms.power(forms.terms(factor.args[0]), m.coefficient)  # exp(n log p) = p^n
    unit = inner_node(Poly((Monomial(ONE, m.factors, m.bound),)))
    return atom(make("exp", unit), m.coefficient)


def _log(forms: Canon, node: Node) -> Terms:
    poly = forms.poly(node.args[0])
    if not poly.terms or forms.has_infinity(node):
        return atom(make("log", inner_node(poly)))
    content = _content(poly, _is_exponential)
    rest = _without(forms, poly, content, ONE)
    result: Terms = {}
    for factor, e in content.items():
        accumulate(result, forms.terms(factor.args[0]), e)  # log(exp(m)^e p) = e m + log(p)
    if rest.constant != 1:
        accumulate(result, atom(make("log", inner_node(rest))))
    return result


def _sqrt(forms: Canon, node: Node) -> Terms:
    poly = forms.poly(node.args[0])
    if not poly.terms:
        return {}
    content = _content(poly, _is_positive)
    scale = ONE
    whole = poly.constant if poly.constant is not None else poly.terms[0].coefficient if len(poly.terms) == 1 else ONE
    root = isqrt(abs(whole.numerator * whole.denominator))
    if whole > 0 and root * root == whole.numerator * whole.denominator:
        scale = Fraction(root, whole.denominator)
    rest = _without(forms, poly, content, scale * scale)
    result: Terms = {(ordered({f: e * HALF for f, e in content.items()}), ()): scale}
    return result if rest.constant == 1 else forms.multiply(result, atom(make("sqrt", inner_node(rest))))


def _pow(forms: Canon, node: Node) -> Terms:
    base, exponent = node.args
    value = build.value_of(exponent)
    if value is None:
        constant = forms.poly(exponent).constant
        value = constant if constant is not None else None
    if value is not None:
        e = Fraction(value)
        if e < 0 and node.dtype == "int":  # cut towards 0
            return forms._stays(node)
        terms = forms.terms(base)
        if e.denominator == 1 and abs(e) <= LONGEST and (len(terms) <= 1 or len(terms) ** abs(int(e)) <= LONGEST):
            return forms.power(terms, e)
        if e.denominator == 2 and abs(e) <= 2:
            root = forms.settle(_sqrt(forms, make("sqrt", base)))
            return forms.power(terms_of(root), e * 2)
    whole = forms.poly(base).constant
    if whole is not None and whole > 0 and value is None:
        return forms.times(_power_of(whole, m) for m in forms.poly(exponent).terms)
    return forms._stays(node)


def _power_of(base: Fraction, m: Monomial) -> Terms:
    if not m.factors and not m.bound and m.coefficient.denominator == 1:
        return number(base ** int(m.coefficient))
    unit = inner_node(Poly((Monomial(ONE, m.factors, m.bound),)))
    return atom(make("pow", build.const(base), unit), m.coefficient)


def _where(forms: Canon, node: Node) -> Terms:
    choice, a, b = node.args
    if forms.has_infinity(a) or forms.has_infinity(b):
        return atom(make("where", condition_node(forms, choice), forms.operand(a), forms.operand(b)))
    c = forms.terms(choice)
    return accumulate(forms.multiply(c, forms.terms(a)), forms.multiply(complement(c), forms.terms(b)))


def _maximum(forms: Canon, node: Node) -> Terms:
    operands = {inner_node(p): p for a in node.args for p in _operands(forms, forms.poly(a))}
    constants = [p.constant for p in operands.values() if p.constant is not None]
    low = build.neg(_INF)
    kept = [p for n, p in operands.items() if n is not low and (p.constant is None or p.constant == max(constants))]
    if not kept:
        return terms_of(forms.poly(low))
    scale = _shared_scale(kept)
    if scale:  # max(c a, c b) = c max(a, b) for positive c
        inner = [inner_node(_without(forms, p, scale, ONE)) for p in kept]
        return forms.multiply({(ordered(scale), ()): ONE}, forms.terms(_folded_maximum(inner)))
    shared = set(terms_of(kept[0]).items()).intersection(*(terms_of(p).items() for p in kept[1:]))
    if len(kept) == 1:
        return terms_of(kept[0])
    common = dict(shared)
    nodes = sorted((inner_node(forms.settle(accumulate(terms_of(p), common, -ONE))) for p in kept), key=key)
    return accumulate(common, atom(_folded_maximum(nodes)))


def _folded_maximum(nodes: list[Node]) -> Node:
    result = nodes[0]
    for other in nodes[1:]:
        result = make("maximum", result, other)
    return result


def _is_exponential(factor: Node) -> bool:
    return factor.op == "exp" and factor.dtype != "complex"


def _shared_scale(polys: list[Poly]) -> dict[Node, Fraction]:
    """Real exponentials that all operands have in common, by the least exponent (0 where absent); 0 has any."""
    found = [_content(p, _is_exponential) for p in polys if p.terms]
    names = {f for content in found for f in content}
    least = {f: min(content.get(f, ZERO) for content in found) for f in names}
    return {f: e for f, e in least.items() if e}


def _operands(forms: Canon, poly: Poly) -> list[Poly]:
    """max(c max(a, b) + d, e) = max(c a + d, c b + d, e) for positive c"""
    for m in poly.terms:
        factor, e = m.factors[0] if len(m.factors) == 1 and not m.bound else (build.ONE, ZERO)
        if factor.op == "maximum" and e == 1 and m.coefficient > 0:
            rest = {k: c for k, c in terms_of(poly).items() if k != (m.factors, m.bound)}
            found = []
            for arg in factor.args:
                moved = accumulate(dict(rest), forms.terms(arg), m.coefficient)
                found += _operands(forms, forms.settle(moved))
            return found
    return [poly]


def _signed(odd: bool, scales: bool) -> Callable[[Canon, Node], Terms]:
    """f(-x) = -f(x) or f(x); with `scales` also f(c x) = |c| f(x), for numbers and positive factors."""

    def rule(forms: Canon, node: Node) -> Terms:
        poly = forms.poly(node.args[0])
        if not poly.terms or forms.has_infinity(node):
            return forms._stays(node)
        lead = poly.terms[0].coefficient
        scale = lead if scales else ONE if lead > 0 else -ONE
        positive = _content(poly, _is_exponential) if scales else {}
        inner = inner_node(_without(forms, poly, positive, scale))
        outer: Terms = {(ordered(positive), ()): -ONE if odd and lead < 0 else abs(scale)}
        return outer if scales and inner is build.ONE else forms.multiply(outer, atom(remake(node, (inner,))))

    return rule


def _part(forms: Canon, node: Node) -> Terms:
    """re and im: linear over the reals; re(i x) = -im(x), im(i x) = re(x)."""
    result: Terms = {}
    for m in forms.poly(node.args[0]).terms:
        real = {f: e for f, e in m.factors if f.dtype != "complex"}
        rest = {f: e for f, e in m.factors if f.dtype == "complex" and f is not _I}
        turns = dict(m.factors).get(_I, ZERO) == 1
        imaginary = turns != (node.op == "im")  # which part of the rest is wanted
        sign = -ONE if turns and node.op == "re" else ONE
        parts: list[Terms] = [{(ordered(real), m.bound): m.coefficient * sign}]
        if rest:
            inner = inner_node(Poly((Monomial(ONE, ordered(rest)),)))
            parts.append(atom(make("im" if imaginary else "re", inner)))
        elif imaginary:
            continue
        accumulate(result, forms.times(parts))
    return result


def _conj(forms: Canon, node: Node) -> Terms:
    """conj of a product is the product of the conjs; conj(exp(x)) = exp(conj(x))."""
    result: Terms = {}
    for m in forms.poly(node.args[0]).terms:
        parts: list[Terms] = [{((), m.bound): m.coefficient}]
        for f, e in m.factors:
            if f.dtype != "complex":
                parts.append(atom(f, e))
            elif f is _I:
                parts.append({k: -c for k, c in atom(f).items()})
            elif f.op == "conj":
                parts.append(dict(atom(f.args[0], e).items()))
            elif f.op == "exp":
                parts.append(forms.terms(make("exp", build.mul(build.const(e), make("conj", f.args[0])))))
            else:
                parts.append(atom(make("conj", f), e))
        accumulate(result, forms.times(parts))
    return result


def _linear_map(forms: Canon, node: Node) -> Terms:
    """A transform of a sum is the sum of the transforms; factors without the consumed indices come out."""
    consumed = frozenset(bound(node))
    place = 0 if node.op == "cumsum" else len(node.args) - 1
    others = [condition_node(forms, a) if a.dtype == "bool" else forms.operand(a) for a in node.args]
    result: Terms = {}
    for m in forms.poly(node.args[place]).terms:
        fixed = consumed | frozenset(m.bound)
        outside = {f: e for f, e in m.factors
                   if not f.free & fixed and not (f.dtype == "complex" and node.op in ("irfft", "rfft", "dct"))}
        inside = ordered({f: e for f, e in m.factors if f not in outside})
        inner = inner_node(Poly((Monomial(ONE, inside, m.bound),)))
        moved = remake(node, (*others[:place], inner, *others[place + 1:]))
        accumulate(result, forms._join(ordered(outside), ((moved, ONE),), ()), m.coefficient)
    return result


RULES: dict[str, Callable[[Canon, Node], Terms]] = {
    "exp": _exp, "log": _log, "sqrt": _sqrt, "pow": _pow, "where": _where, "maximum": _maximum,
    "abs": _signed(odd=False, scales=True), "cos": _signed(odd=False, scales=False),
    "sin": _signed(odd=True, scales=False), "erf": _signed(odd=True, scales=False), "re": _part, "im": _part,
    "conj": _conj,
    **dict.fromkeys(("fft", "ifft", "rfft", "irfft", "hadamard", "dct", "cumsum", "solve"), _linear_map),
}
