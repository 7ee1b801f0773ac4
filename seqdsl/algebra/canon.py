"""The canonical form of an index expression (DERIVATIONS 1.1): equal forms are equal values, for all sizes and inputs.

An expression becomes a sum of monomials. Sums over indices are pulled to the front of their monomial, `exp` of a sum
becomes a product, conditions become Iverson brackets (idempotent factors), an equality of two indices with a bound one
substitutes it, and bound indices are renamed to the least among their equals. Equality is that of rational functions:
x / x is 1, so a proof speaks of points where no denominator is 0, and bodies under a guard are finite. Unequal
forms prove nothing.

With `states`, only what depends on those tensors is taken apart: every maximal state-free operator that is not a
product, a sum or an exponential stays as it was written, one factor (expanding long gates would be exponential).

Source: the rules are those of ordinary algebra; the fresh-then-least renaming follows Kapoor, "Normal forms of tensor
expressions", and de Bruijn levels. Entry points: `canon`, `Canon`, `to_node`; equality is `equal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import count, permutations, product
from typing import cast

from seqdsl.algebra.brackets import condition, condition_node
from seqdsl.algebra.expand import EXPAND
from seqdsl.algebra.poly import (
    ONE,
    Factors,
    Monomial,
    Poly,
    Terms,
    accumulate,
    atom,
    height,
    inner_node,
    key,
    monomials,
    number,
    order_key,
    ordered,
    to_node,
)
from seqdsl.algebra.rules import RULES, divided, inverse
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, bound, make, remake
from seqdsl.ir.system import System

__all__ = ["Canon", "canon", "to_node"]

LIMIT = 400  # monomials of a product; a larger one stays a factor
HOIST_LIMIT = 40  # the same for a state-free product next to states
COMPOUND = frozenset(("add", "sub", "neg", "mul", "div", "sum", "where"))  # factors only below a fraction bar
_REDUCES = COMPOUND | {"sqrt", "const"}
_INF = build.const("inf")
_LOW = build.neg(_INF)


class Canon:
    """Canonical forms over one system, memoised. `states`: see the module's docstring."""

    def __init__(self, system: System, states: frozenset[str] = frozenset()) -> None:
        self.system, self.states = system, states
        self._terms: dict[Node, Terms] = {}
        self._polys: dict[Node, Poly] = {}
        self._live: dict[Node, bool] = {}
        self._infinite: dict[Node, bool] = {}
        self._fresh = count()

    def poly(self, node: Node) -> Poly:
        """The canonical form."""
        found = self._polys.get(node)
        if found is None:
            found = self._polys[node] = self.settle(self.terms(node))
        return found

    def operand(self, node: Node) -> Node:
        """The canonical node of a value, for use below an operator that stays."""
        if node.dtype == "bool":
            return condition_node(self, node)
        if node.op in ("const", "index", "size") or (node.op == "read" and _plain(node)):
            return self._leaf(node)
        return inner_node(self.poly(node))

    def axis(self, name: str) -> str:
        """The axis of an index, internal ones included."""
        return name.partition("#")[0] if "#" in name else self.system.axis(name)

    def fresh(self, name: str) -> str:
        """A new internal index on the same axis."""
        return f"{self.axis(name)}#{next(self._fresh)}"

    def is_live(self, node: Node) -> bool:
        """Does it depend on a state? With no states given everything counts."""
        if not self.states:
            return True
        found = self._live.get(node)
        if found is None:
            found = node.op == "read" and node.attr in self.states or any(self.is_live(a) for a in node.args)
            self._live[node] = found
        return found

    def has_infinity(self, node: Node) -> bool:
        """Does it mention `inf`, but in max(x, -inf) = x and 0 * x = 0? Sums with it must not cancel."""
        found = self._infinite.get(node)
        if found is None:
            gone = node.op == "mul" and any(build.value_of(a) == 0 for a in node.args)
            operands = () if gone else (a for a in node.args if node.op != "maximum" or a is not _LOW)
            found = node is _INF or any(self.has_infinity(a) for a in operands)
            self._infinite[node] = found
        return found

    def terms(self, node: Node) -> Terms:
        """The form before bound indices have their final names."""
        found = self._terms.get(node)
        if found is None:
            found = self._terms[node] = self._build(node)
        return found

    def _build(self, node: Node) -> Terms:
        op = node.op
        if op in ("const", "size"):
            return self._number_or_atom(self._leaf(node))
        if node.dtype == "bool":
            return condition(self, node)
        if op in ("add", "sub") and self.has_infinity(node):
            return self._stays(node)
        if op == "add":
            return accumulate(dict(self.terms(node.args[0])), self.terms(node.args[1]))
        if op == "sub":
            return accumulate(dict(self.terms(node.args[0])), self.terms(node.args[1]), -ONE)
        if op == "neg":
            return {k: -c for k, c in self.terms(node.args[0]).items()}
        if op == "mul":
            return self._product(node)
        if op in ("div", "exact_div"):
            return divided(self, *node.args)
        if op == "sum":
            return self._sum(node)
        if op == "read":
            return atom(self._leaf(node))
        if self.states and op != "exp" and not self.is_live(node):
            return atom(node)  # hoisted: as it was written
        if op in RULES:
            return RULES[op](self, node)
        if op in EXPAND and not (op == "stop" and self.states):
            return self.terms(EXPAND[op](node))
        return self._stays(node)

    def _number_or_atom(self, node: Node) -> Terms:
        if node.op == "const" and not isinstance(node.attr, str):
            return number(int(node.attr) if isinstance(node.attr, bool) else cast("int | Fraction", node.attr))
        return atom(node)

    def _leaf(self, node: Node) -> Node:
        if node.op == "size":
            axis = self.axis(str(node.attr))
            length = self.system.index(axis).size
            return length if length is not None and build.value_of(length) is not None else build.size(axis)
        if node.op == "read" and not _plain(node):
            return remake(node, tuple(self.operand(a) for a in node.args))
        return node

    def _product(self, node: Node) -> Terms:
        a, b = (self.terms(x) for x in node.args)
        if len(a) * len(b) > (LIMIT if self.is_live(node) else HOIST_LIMIT):
            return self._stays(node)
        return self.multiply(a, b)

    def _stays(self, node: Node) -> Terms:
        """An operator that is one factor, over canonical operands."""
        if not OPS[node.op].binding:
            return atom(remake(node, tuple(self.operand(a) for a in node.args)))
        if OPS[node.op].binding == "reduce":
            return atom(self._binder(node))
        args = tuple(condition_node(self, a) if a.dtype == "bool" else self.operand(a) for a in node.args)
        return atom(remake(node, args))

    def _binder(self, node: Node) -> Node:
        """A reduction other than a sum, its indices named by their level."""
        names = {n: self.fresh(n) for n in bound(node)}
        moved = build.rename_here(node, names)
        args = (self.operand(moved.args[0]), condition_node(self, moved.args[1]))
        level = 1 + max(height(a) for a in args)
        final = {n: f"{self.axis(n)}#{level}.{k}" for k, n in enumerate(names.values())}
        renamed = build.rename_here(make(node.op, *args, attr=moved.attr), final)
        return make(node.op, self.operand(renamed.args[0]), condition_node(self, renamed.args[1]), attr=renamed.attr)

    def _sum(self, node: Node) -> Terms:
        names = {n: self.fresh(n) for n in bound(node)}
        moved = build.rename_here(node, names)
        body = self.terms(moved.args[0])
        if moved.args[1] is not build.TRUE:
            body = self.multiply(body, condition(self, moved.args[1]))
        return {(factors, tuple(sorted((*inner, *names.values())))): c for (factors, inner), c in body.items()}

    # -- multiplication ----------------------------------------------------------------------------------------------

    def multiply(self, a: Terms, b: Terms) -> Terms:
        """The product; the right operand's bound indices are renamed away from the left's."""
        result: Terms = {}
        for (left, names), x in a.items():
            for (right, others), y in b.items():
                clash = set(names) & set(others)
                if clash:
                    renames = {n: self.fresh(n) for n in clash}
                    right, others = _renamed(right, renames), tuple(renames.get(n, n) for n in others)
                accumulate(result, self._join(left, right, (*names, *others)), x * y)
        return result

    def _join(self, left: Factors, right: Factors, names: tuple[str, ...]) -> Terms:
        if not left or not right:
            return {(left or right, tuple(sorted(names))): ONE}
        merged = dict(left)
        special = False
        for factor, exponent in right:
            if factor in merged:
                special = special or factor.op in _REDUCES or factor.dtype == "bool"
                merged[factor] += exponent
            else:
                merged[factor] = exponent
        if not special:
            return {(ordered(merged), tuple(sorted(names))): ONE}
        return self.reduced(merged, names)

    def reduced(self, merged: dict[Node, Fraction], names: tuple[str, ...]) -> Terms:
        """Laws of single factors: [p]^2 = [p], i^2 = -1, sqrt(p)^2 = p, and sums with a positive power multiply out."""
        sign = ONE
        extra: list[Terms] = []
        for factor, exponent in list(merged.items()):
            if factor.dtype == "bool":
                merged[factor] = ONE
            elif factor.op == "const" and factor.attr == "i":
                merged[factor] = exponent % 2
                sign *= -1 if exponent % 4 >= 2 else 1
            elif factor.op == "sqrt" and abs(exponent) >= 2:
                merged[factor] = exponent - 2 * int(exponent / 2)
                extra.append(self.power(self.terms(factor.args[0]), Fraction(int(exponent / 2))))
            elif factor.op in COMPOUND and exponent > 0 and not self.has_infinity(factor):
                del merged[factor]
                extra.append(self.power(self.terms(factor), exponent))
        result: Terms = {(ordered(merged), tuple(sorted(names))): sign}
        for more in extra:
            result = self.multiply(result, more)
        return result

    def power(self, base: Terms, exponent: Fraction) -> Terms:
        """base ^ exponent for an integer exponent."""
        if exponent < 0:
            return inverse(self, self.settle(base), -exponent)
        result = number(1)
        for _ in range(int(exponent)):
            result = self.multiply(result, base)
        return result

    def times(self, parts: Iterable[Terms]) -> Terms:
        """The product of several."""
        result = number(1)
        for part in parts:
            result = self.multiply(result, part)
        return result

    # -- final names -------------------------------------------------------------------------------------------------

    def settle(self, terms: Terms) -> Poly:
        """Deltas gone, unused bound indices counted, bound indices renamed, equal monomials merged, terms in order."""
        merged: Terms = {}
        for monomial in monomials(terms):
            accumulate(merged, self._settled(monomial))
        return Poly(tuple(sorted(monomials(merged), key=order_key)))

    def _settled(self, monomial: Monomial) -> Terms:
        if not monomial.bound:
            return {(monomial.factors, ()): monomial.coefficient}
        factors, names = self._without_deltas(monomial.factors, list(monomial.bound))
        used = [n for n in names if any(n in f.free for f, _ in factors)]
        if len(used) < len(names):
            sizes = [self._number_or_atom(self._leaf(build.size(self.axis(n)))) for n in names if n not in used]
            whole = self.multiply({(factors, tuple(sorted(used))): monomial.coefficient}, self.times(sizes))
            result: Terms = {}
            for m in monomials(whole):
                accumulate(result, self._least(m))
            return result
        return self._least(Monomial(monomial.coefficient, factors, tuple(used)))

    def _without_deltas(self, factors: Factors, names: list[str]) -> tuple[Factors, list[str]]:
        for factor, _ in factors:
            if factor.op != "eq" or factor.args[0].op != "index" or factor.args[1].op != "index":
                continue
            for mine, other in (factor.args, factor.args[::-1]):
                name, target = str(mine.attr), str(other.attr)
                if name in names and self.axis(name) == self.axis(target) and name != target:
                    rest = _renamed(tuple((f, e) for f, e in factors if f is not factor), {name: target})
                    kept_ones = [fe for fe in rest if not (fe[0].op == "eq" and fe[0].args[0] is fe[0].args[1])]
                    merged: Terms = self.times({((fe,), ()): ONE} for fe in kept_ones)
                    ((kept, _),) = merged  # renaming reads and brackets gives one monomial again
                    return self._without_deltas(kept, [n for n in names if n != name])
        return factors, names

    def _least(self, monomial: Monomial) -> Terms:
        """Bound indices renamed to axis#level.0, axis#level.1, ..: the least of the results."""
        if not monomial.bound:
            return {(monomial.factors, ()): monomial.coefficient}
        level = 1 + max((height(f) for f, _ in monomial.factors), default=0)
        groups: dict[str, list[str]] = {}
        for name in monomial.bound:
            groups.setdefault(self.axis(name), []).append(name)
        best: tuple[tuple[tuple[str, ...], ...], Terms] | None = None
        for names in _orders(monomial, groups):
            renamed = self._rename(monomial, {n: f"{self.axis(n)}#{level}.{k}" for n, k in names.items()})
            mark = tuple(sorted(order_key(m) for m in monomials(renamed)))
            if best is None or mark < best[0]:
                best = mark, renamed
        assert best is not None
        return best[1]

    def _rename(self, monomial: Monomial, names: Mapping[str, str]) -> Terms:
        """Rename, and give operators below their order again."""
        parts: list[Terms] = [{((), tuple(sorted(names.values()))): monomial.coefficient}]
        simple: dict[Node, Fraction] = {}
        for factor, exponent in monomial.factors:
            touched = {n: build.index(v) for n, v in names.items() if n in factor.free}
            renamed = build.substitute(factor, touched) if touched else factor
            if not touched or (renamed.op == "read" and _plain(renamed)) or renamed.op == "index":
                simple[renamed] = simple.get(renamed, Fraction(0)) + exponent
            elif renamed.op in COMPOUND and exponent < 0:
                parts.append(self.power(self.terms(renamed), exponent))
            else:
                parts.append(_raised(self.terms(renamed), exponent))
        parts[0] = {(ordered(simple), tuple(sorted(names.values()))): monomial.coefficient}
        return self.times(parts) if len(parts) > 1 else parts[0]


def _raised(terms: Terms, exponent: Fraction) -> Terms:
    """A single canonical factor to a power; what renaming made of it is one monomial with coefficient +-1."""
    if exponent == 1:
        return terms
    ((factors, names), c), = terms.items()
    return {(tuple((f, e * exponent) for f, e in factors), names): c ** int(exponent) if c != 1 else ONE}


def _plain(node: Node) -> bool:
    """All operands are leaves, so that renaming keeps the node canonical."""
    return all(not a.args and a.op != "size" for a in node.args)


def _renamed(factors: Factors, names: Mapping[str, str]) -> Factors:
    moved = {n: build.index(v) for n, v in names.items()}
    changed = [(build.substitute(f, moved) if f.free & names.keys() else f, e) for f, e in factors]
    return tuple(sorted(changed, key=lambda fe: (key(fe[0]), fe[1])))


def _orders(monomial: Monomial, groups: Mapping[str, list[str]]) -> Iterable[dict[str, int]]:
    """Numberings of the bound indices worth trying: by what each looks like, permuted where they look alike."""
    choices: list[list[dict[str, int]]] = []
    for names in groups.values():
        if len(names) == 1:
            choices.append([{names[0]: 0}])
            continue
        looks = {n: _look(monomial, n) for n in names}
        classes: dict[str, list[str]] = {}
        for n in sorted(names, key=lambda n: looks[n]):
            classes.setdefault(looks[n], []).append(n)
        alike = [list(permutations(c)) if len(c) <= 4 else [tuple(c)] for c in classes.values()]
        choices.append([{n: k for k, n in enumerate(n for part in order for n in part)} for order in product(*alike)])
    for combination in product(*choices):
        yield {n: k for part in combination for n, k in part.items()}


def _look(monomial: Monomial, name: str) -> str:
    """What the factors look like from one bound index, the others alike."""
    others = {n: build.index(f"{n.partition('#')[0]}#*") for n in monomial.bound if n != name}
    values = {**others, name: build.index(f"{name.partition('#')[0]}#!")}
    seen = sorted(f"{key(build.substitute(f, values))}^{e}" for f, e in monomial.factors if name in f.free)
    return "|".join(seen)


def canon(system: System, node: Node) -> Poly:
    """The canonical form of an expression over a system."""
    return Canon(system).poly(node)
