"""Conditions as Iverson brackets: a boolean expression as a polynomial in 0/1 factors.

[not c] = 1 - [c], [a and b] = [a][b], [a or b] = [a] + [b] - [a][b]. A comparison of integers becomes [0 <= p] with a
positive leading coefficient, since [0 <= p] = 1 - [0 <= -p - 1]; of reals a < b is 1 - [b <= a].
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from seqdsl.algebra.poly import ONE, Poly, Terms, accumulate, atom, inner_node, key, number
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, make, remake

if TYPE_CHECKING:
    from seqdsl.algebra.canon import Canon

_COMPARE = ("lt", "le", "eq", "ne")


def condition(forms: Canon, node: Node) -> Terms:
    """The condition as a sum of products of brackets."""
    op = node.op
    if op == "const":
        return number(1 if node.attr else 0)
    if op == "not":
        return complement(condition(forms, node.args[0]))
    if op in ("and", "or"):
        a, b = (forms.terms(x) for x in node.args)
        both = forms.multiply(a, b)
        if op == "and":
            return both
        return accumulate(accumulate(dict(a), b), both, -ONE)
    if op == "where":
        c, a, b = (forms.terms(x) for x in node.args)
        return accumulate(forms.multiply(c, a), forms.multiply(complement(c), b))
    if op == "read":
        return atom(forms._leaf(node))
    if op in ("any", "all"):
        return atom(forms._binder(node))
    if op in _COMPARE and node.args[0].dtype != "bool" and node.args[1].dtype != "bool":
        if forms.states and not forms.is_live(node):
            return complement(atom(make("eq", *node.args))) if op == "ne" else atom(node)
        return _comparison(forms, node)
    args = tuple(forms.operand(a) for a in node.args)
    return atom(node if OPS[op].binding else remake(node, args))


def complement(terms: Terms) -> Terms:
    """1 - terms"""
    return accumulate(number(1), terms, -ONE)


def _comparison(forms: Canon, node: Node) -> Terms:
    a, b = node.args
    if forms.has_infinity(node):
        return atom(make(node.op, forms.operand(a), forms.operand(b)))
    whole = a.dtype == "int" and b.dtype == "int"
    if node.op == "ne":
        return complement(_comparison(forms, make("eq", a, b)))
    if node.op == "lt" and not whole:
        return complement(_comparison(forms, make("le", b, a)))
    gap = forms.settle(accumulate(dict(forms.terms(b)), forms.terms(a), -ONE))
    if node.op == "lt":
        gap = _shifted(forms, gap, -1)
    value = gap.constant
    if value is not None:
        return number(1 if (value == 0 if node.op == "eq" else value >= 0) else 0)
    lead = gap.terms[0].coefficient
    if node.op == "eq":
        return atom(_equality(_scaled(forms, gap, 1 / lead)))
    if not whole:
        return atom(make("le", build.ZERO, _scaled(forms, gap, 1 / abs(lead))))
    if lead < 0:
        opposite = _shifted(forms, forms.settle({(m.factors, m.bound): -m.coefficient for m in gap.terms}), -1)
        return complement(atom(make("le", build.ZERO, inner_node(opposite))))
    return atom(make("le", build.ZERO, inner_node(gap)))


def _shifted(forms: Canon, poly: Poly, by: int) -> Poly:
    return forms.settle(accumulate({(m.factors, m.bound): m.coefficient for m in poly.terms}, number(by)))


def _equality(gap: Node) -> Node:
    """[gap == 0], an equality of two indices written as such."""
    if gap.op == "sub" and gap.args[0].op == "index" and gap.args[1].op == "index":
        a, b = sorted(gap.args, key=key)
        return make("eq", a, b)
    return make("eq", gap, build.ZERO)


def _scaled(forms: Canon, gap: Poly, by: Fraction) -> Node:
    return inner_node(forms.settle({(m.factors, m.bound): m.coefficient * by for m in gap.terms}))


def condition_node(forms: Canon, node: Node) -> Node:
    """The canonical condition as a boolean node: a guard of an operator that stays."""
    if node.op in ("and", "or"):
        parts = sorted({condition_node(forms, p) for p in _flat(node, node.op)}, key=key)
        result = parts[0]
        for part in parts[1:]:
            result = make(node.op, result, part)
        return result
    terms = condition(forms, node)
    if not terms:
        return build.FALSE
    if len(terms) == 1:
        ((factors, names), c), = terms.items()
        if not factors and not names:
            return build.TRUE
        if len(factors) == 1 and not names and c == 1:
            return factors[0][0]
    rest = complement(terms)
    if len(rest) == 1:
        ((factors, names), c), = rest.items()
        if len(factors) == 1 and not names and c == 1:
            return make("not", factors[0][0])
    return node


def _flat(node: Node, op: str) -> list[Node]:
    return [x for a in node.args for x in _flat(a, op)] if node.op == op else [node]
