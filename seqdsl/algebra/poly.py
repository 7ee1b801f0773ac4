"""Sums of monomials over index expressions, and their way back to nodes.

A monomial is coefficient * product(factor ^ exponent), summed over its bound indices. A factor is a node: a read, an
index, a size, `exp` of a unit monomial, the Iverson bracket of a condition (a node of dtype bool), a sum under a
negative power, or any operator whose operands are canonical. Bound indices are named `axis#..`, which no user's name
and no renamed index can be; `to_node` gives them names that a `System` knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from weakref import WeakKeyDictionary

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound, make

Factors = tuple[tuple[Node, Fraction], ...]
Key = tuple[Factors, tuple[str, ...]]
Terms = dict[Key, Fraction]  # a sum of monomials while it is being computed

ONE = Fraction(1)
_keys: WeakKeyDictionary[Node, str] = WeakKeyDictionary()
_heights: WeakKeyDictionary[Node, int] = WeakKeyDictionary()


@dataclass(frozen=True)
class Monomial:
    """coefficient * product of factors with exponents, summed over `bound`."""

    coefficient: Fraction
    factors: Factors
    bound: tuple[str, ...] = ()

    @property
    def free(self) -> frozenset[str]:
        """The indices the value varies along."""
        return frozenset().union(*(f.free for f, _ in self.factors)) - frozenset(self.bound)


@dataclass(frozen=True)
class Poly:
    """A canonical sum of monomials: equal polynomials have equal values for all sizes and inputs."""

    terms: tuple[Monomial, ...]

    @property
    def is_zero(self) -> bool:
        return not self.terms

    @property
    def constant(self) -> Fraction | None:
        """The number that the sum is, if it is one."""
        if not self.terms:
            return Fraction(0)
        first = self.terms[0]
        return first.coefficient if len(self.terms) == 1 and not first.factors and not first.bound else None


def key(node: Node) -> str:
    """A text that orders nodes the same way in every run."""
    found = _keys.get(node)
    if found is None:
        inner = ",".join(key(a) for a in node.args)
        found = f"{node.op}:{node.attr!r}({inner})"
        if len(found) > 160:
            found = f"{found[:40]}~{blake2b(found.encode(), digest_size=16).hexdigest()}"
        _keys[node] = found
    return found


def height(node: Node) -> int:
    """How deep canonical binders nest below a node: the level of their names (`d#2.0` is of level 2)."""
    found = _heights.get(node)
    if found is None:
        found = max((height(a) for a in node.args), default=0)
        if OPS[node.op].binding:
            for name in bound(node):
                level = name.partition("#")[2].partition(".")
                if level[1]:
                    found = max(found, int(level[0]))
        _heights[node] = found
    return found


def ordered(factors: Mapping[Node, Fraction]) -> Factors:
    """Factors in their canonical order, those of exponent 0 dropped."""
    kept = [(f, e) for f, e in factors.items() if e != 0]
    return tuple(kept) if len(kept) < 2 else tuple(sorted(kept, key=lambda fe: (key(fe[0]), fe[1])))


def order_key(monomial: Monomial) -> tuple[str, ...]:
    """Orders the monomials of a sum."""
    return (*(f"{key(f)}^{e}" for f, e in monomial.factors), "|", *monomial.bound)


def monomials(terms: Terms) -> list[Monomial]:
    """The terms as monomials, in no order."""
    return [Monomial(c, factors, names) for (factors, names), c in terms.items()]


def accumulate(into: Terms, more: Terms, scale: Fraction = ONE) -> Terms:
    """Add in place; terms that cancel vanish."""
    for k, c in more.items():
        total = into.get(k, Fraction(0)) + c * scale
        if total:
            into[k] = total
        else:
            into.pop(k, None)
    return into


def number(value: int | Fraction) -> Terms:
    """The terms of a constant."""
    return {((), ()): Fraction(value)} if value else {}


def atom(node: Node, exponent: Fraction | int = 1) -> Terms:
    """The terms of one factor."""
    return {(((node, Fraction(exponent)),), ()): ONE}


def number_node(value: Fraction) -> Node:
    """The constant; an integer stays one."""
    return build.const(int(value) if value.denominator == 1 else value)


def power_node(factor: Node, exponent: Fraction) -> Node:
    """factor ^ exponent for a positive exponent."""
    if factor.dtype == "bool":
        return make("where", factor, build.ONE, build.ZERO)
    if exponent == 1:
        return factor
    if exponent == Fraction(1, 2):
        return make("sqrt", factor)
    return make("pow", factor, number_node(exponent))


def product_node(monomial: Monomial) -> Node:
    """The monomial without its sum: exponentials joined, negative powers below a fraction bar."""
    above: list[Node] = []
    below: list[Node] = []
    exponents: list[Node] = []
    guards: list[Node] = []
    for factor, exponent in monomial.factors:
        if factor.op == "exp":
            exponents.append(build.mul(number_node(exponent), factor.args[0]) if exponent != -1 else build.neg(factor.args[0]))
        elif factor.dtype == "bool":
            guards.append(factor)
        else:
            (above if exponent > 0 else below).append(power_node(factor, abs(exponent)))
    if exponents:
        above.insert(0, make("exp", signed_total(exponents)))
    sign = monomial.coefficient < 0
    result = build.product([number_node(abs(monomial.coefficient)), *above])
    if below:
        result = make("div", result, build.product(below))
    result = build.neg(result) if sign else result
    for guard in guards:
        result = build.where(guard, result, build.ZERO)
    return result


def signed_total(terms: Iterable[Node]) -> Node:
    """A sum of nodes that writes a - b rather than a + -b."""
    result: Node | None = None
    for term in terms:
        if result is None:
            result = term
        elif term.op == "neg":
            result = build.sub(result, term.args[0])
        else:
            result = build.add(result, term)
    return build.ZERO if result is None else result


def monomial_node(monomial: Monomial) -> Node:
    """The monomial with its sum; bound indices keep their internal names."""
    body = product_node(monomial)
    if not monomial.bound:
        return body
    if body.op == "neg":
        return build.neg(build.reduce("sum", monomial.bound, body.args[0]))
    return build.reduce("sum", monomial.bound, body)


def inner_node(poly: Poly) -> Node:
    """The sum as a node whose bound indices keep their internal names: the canonical operand of an operator."""
    return signed_total(monomial_node(m) for m in poly.terms)


def public(node: Node) -> Node:
    """Internal index names replaced by primed ones that the system knows: `d#1.0` becomes `d'`."""
    taken: set[str] = set()
    internal: list[str] = []
    for n in walk(node):
        names = [str(n.attr)] if n.op in ("index", "size") else [*bound(n)] if OPS[n.op].binding else []
        taken.update(x for x in names if "#" not in x)
        internal += [x for x in names if "#" in x and x not in internal]
    renames: dict[str, str] = {}
    for name in internal:
        renames[name] = build.fresh(name.partition("#")[0] + "'", taken)
        taken.add(renames[name])
    return build.rename(node, renames) if renames else node


def to_node(poly: Poly) -> Node:
    """Back to a node with names that a system knows."""
    return public(inner_node(poly))
