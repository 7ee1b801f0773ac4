"""Evaluation in a tower of prime fields, where `exp` is an exact homomorphism (DERIVATIONS 6.3).

A value is the residues of a number over chained primes (`residues`), and exp(x) at level i is G[i] ^ x[i+1]:
exp(a + b) = exp(a) exp(b) without a rounding. Each `exp` uses up the last level. What is decided by order, `max`, `where`,
a guard, and what is whole, a position, comes from the exact evaluation of the same node beside it (`exact.World`): the
order oracle.

`sqrt` is multiplicative on squares; exp(log p) = p, log(exp x) = x and -inf = log 0; otherwise `log`, `sin`, `cos` and
`erf` are uninterpreted, a keyed hash of their operand: equal operands give equal values, and nothing more is known of
them. An evaluation that met one of these is `opaque`: a mismatch then says nothing. Where residues obey laws that numbers
do not, or have a value where numbers have none, it is `loose` as well, and equal residues say nothing by themselves: a root
has no sign in a field, exp(i b) no modulus, an infinity cancels, and a logarithm is defined below 0.

Architecture invariant: shares no code with the canonical form or the interpreter. Errors: `NotExact`.
Source: Schwartz 1980 and Zippel 1979 for polynomials; with `exp` the bound is heuristic (three draws).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from math import isqrt

from seqdsl.algebra.exact import BUDGET, NORMS, At, Point, World, evaluate, expanded, point_of, points, row_of
from seqdsl.algebra.numbers import Complex, NotExact, Number, TooMuch, real
from seqdsl.algebra.residues import (
    LEVELS,
    Value,
    exponential,
    inverse,
    minus,
    negative,
    plus,
    primes,
    product,
    rational,
    root,
    small,
    times,
    total,
)
from seqdsl.ir import build
from seqdsl.ir.node import Node, read_names
from seqdsl.ir.ops import OPS

_FACTORED = 10**6  # numbers below are searched for square factors


class TooDeep(NotExact):
    """`exp` is nested deeper than this evaluation has levels."""


@dataclass
class Tower:
    """Residues of expressions over the numbers of a `World`, over so many of the primes; `opaque` once a function without
    laws was met, `loose` once equal residues may be of different numbers."""

    world: World
    levels: int = LEVELS
    opaque: bool = False
    loose: bool = False
    spent: int = 0
    logarithms: dict[Value, Value] = field(default_factory=dict)  # log x -> x
    exponents: dict[Value, Value] = field(default_factory=dict)  # exp x -> x
    done: dict[tuple[str, Point], Value] = field(default_factory=dict)
    totals: dict[object, Value] = field(default_factory=dict)

    def deepen(self) -> None:
        """Begin again, with twice the levels, or as many as there are."""
        self.levels = min(2 * self.levels, LEVELS)
        for known in (self.logarithms, self.exponents, self.done, self.totals):
            known.clear()

    def value(self, node: Node, at: At) -> Value:
        """The residues of a real or complex expression where the free indices are at `at`."""
        count, found = rule(node)
        self.spent += count
        if self.spent > BUDGET:
            raise TooMuch("more than fits an exact evaluation")
        return found(self, at)

    def chosen(self, node: Node, at: At) -> Value:
        chosen = evaluate(node.args[0], at, self.world) != 0
        return self.value(node.args[1 if chosen else 2], at)

    def extreme(self, node: Node, at: At) -> Value:
        a, b = (real(evaluate(x, at, self.world)) for x in node.args)
        return self.value(node.args[0 if (a >= b) == (node.op == "maximum") else 1], at)

    def by_order(self, node: Node, at: At) -> Value:
        decides = real(evaluate(node.args[0], at, self.world))
        return self.value(BY_ORDER[node.op](decides, *node.args), at)

    def reduced(self, node: Node, at: At) -> Value:
        row = row_of(node, at)
        if row not in self.totals:
            self.totals[row] = self._reduce(node, at)
        return self.totals[row]

    def whole(self, node: Node, at: At) -> Value:
        """A rational that the exact evaluation gives: a constant, a position, a bracket, a rounded number."""
        found = evaluate(node, at, self.world)
        parts = (found.re, found.im) if isinstance(found, Complex) else (found, Fraction(0))
        if not all(isinstance(x, Fraction) for x in parts):
            if node.op == "const" and node.attr == "pi":
                return self.hashed("pi", ())
            if node.op == "const":
                self.loose = True
                return negative(log(self, self.rational(Fraction(0))))
            raise NotExact(f"`{node.op}` has no residue")
        return self.rational(*parts)  # type: ignore[arg-type]

    def rational(self, re: Fraction, im: Fraction = Fraction(0)) -> Value:
        """The residues of a (Gaussian) rational, at the levels that this evaluation begins with."""
        return rational(re, im)[: self.levels]

    def root_of_number(self, node: Node, at: At) -> Value:
        """The root of a number that no input decides, such as |d|: a rational number times the root of one without square
        factors, of which no formula over rationals can tell the two apart."""
        square = evaluate(node.args[0], at, self.world)
        whole = square.numerator * square.denominator if isinstance(square, Fraction) else 0
        if not isinstance(square, Fraction) or not 0 < whole < _FACTORED:
            return self.root(self.value(node.args[0], at))
        outside = next(r for r in range(isqrt(whole), 0, -1) if whole % (r * r) == 0)
        found, loose = self.rational(Fraction(outside, square.denominator)), self.loose
        if whole > outside * outside:
            found = times(found, self.root(self.rational(Fraction(whole // (outside * outside)))))
        self.loose = loose
        return found

    def read(self, name: str, point: Point, dtype: str) -> Value:
        """A tensor at a point."""
        key = name, point
        if key not in self.done:
            opened = self.world.opened(name, point)
            if opened is not None:
                self.done[key] = self.value(*opened)
            else:
                self.done[key] = self._of_number(self.world.value(name, point, dtype))
        return self.done[key]

    def _of_number(self, x: Number) -> Value:
        parts = (x.re, x.im) if isinstance(x, Complex) else (x, Fraction(0))
        if not all(isinstance(v, Fraction) for v in parts):
            raise NotExact("a number that is not rational")
        return self.rational(*parts)  # type: ignore[arg-type]

    def _reduce(self, node: Node, at: At) -> Value:
        body, guard = node.args
        here = points(node, guard, at, self.world)
        if node.op in ("sum", "mean", "prod", "logsumexp"):
            values = [self.value(body, p) for p in here]
            if node.op == "logsumexp":
                return log(self, total([exp(self, v) for v in values]))
            if node.op == "prod":
                return product(values)
            found = total(values)
            return times(found, rational(Fraction(1, len(values)))) if node.op == "mean" and values else found
        if node.op in ("max", "min") and here:
            pick = max if node.op == "max" else min
            return self.value(body, pick(here, key=lambda p: real(evaluate(body, p, self.world))))
        return self.whole(node, at)

    def softmax(self, node: Node, at: At) -> Value:
        body, guard = node.args
        if evaluate(guard, at, self.world) == 0:
            return rational(Fraction(0))
        row = row_of(node, at)
        if row not in self.totals:
            self.totals[row] = total([exp(self, self.value(body, p)) for p in points(node, guard, at, self.world)])
        return times(exp(self, self.value(body, at)), inverse(self.totals[row]))

    def hashed(self, name: str, operands: tuple[Value, ...]) -> Value:
        self.opaque = True
        text = f"{name}:{operands}".encode()
        levels = range(min((len(v) for v in operands), default=self.levels))
        keyed = (int.from_bytes(blake2b(text, salt=bytes([i])).digest(), "big") for i in levels)
        return tuple((h % primes()[i], 0) for i, h in enumerate(keyed))

    def root(self, x: Value) -> Value:
        """The square root: of a square the one that is itself a square; of anything else a hash."""
        self.opaque = self.loose = True
        return root(x) or self.hashed("sqrt", (x,))

    def power(self, x: Value, y: Value) -> Value:
        """x ^ y: for a whole exponent by multiplication, else exp(y log x)."""
        exponent = small(y)
        if exponent is None:
            half = small(times(y, rational(Fraction(2))))
            return self.power(self.root(x), rational(Fraction(half))) if half is not None else exp(
                self, times(y, _logarithm(self, x))
            )
        return product([x if exponent >= 0 else inverse(x)] * abs(exponent))


@lru_cache(10_000)
def rule(node: Node) -> tuple[int, Callable[[Tower, At], Value]]:
    """How a node is evaluated, and how many nodes that takes; as for numbers (`exact.rule`)."""
    op = node.op
    if op == "read":
        return _read(node)
    if op == "sqrt" and not read_names(node):
        return 1, lambda tower, at: tower.root_of_number(node, at)
    if op in RULES:
        return _applied(RULES[op], node)
    if op in UNINTERPRETED:
        return _applied(lambda tower, *values: _uninterpreted(tower, op, values), node)
    if op in NORMS:
        count, value = rule(expanded(node))
        return 1 + count, value
    otherwise = Tower.reduced if OPS[op].binding == "reduce" else Tower.whole
    how = _AT_POINTS.get(op, otherwise)
    return 1, lambda tower, at: how(tower, node, at)


def _read(node: Node) -> tuple[int, Callable[[Tower, At], Value]]:
    count, place = point_of(node)
    name, dtype = str(node.attr), node.dtype

    def read(tower: Tower, at: At) -> Value:
        tower.world.spend(count)
        return tower.read(name, place(at, tower.world), dtype)

    return 1, read


def _applied(function: Callable[..., Value], node: Node) -> tuple[int, Callable[[Tower, At], Value]]:
    rules = [rule(a) for a in node.args]
    count = 1 + sum(c for c, _ in rules)
    a, b = rules[0][1], rules[-1][1]
    if len(rules) == 1:
        return count, lambda tower, at: function(tower, a(tower, at))
    if len(rules) == 2:
        return count, lambda tower, at: function(tower, a(tower, at), b(tower, at))
    return count, lambda tower, at: function(tower, *[value(tower, at) for _, value in rules])


def _uninterpreted(tower: Tower, op: str, values: tuple[Value, ...]) -> Value:
    tower.loose = tower.loose or op == "log2"
    return tower.hashed(op, values)


def exp(tower: Tower, x: Value) -> Value:
    """exp(a + i b) = G ^ a * H ^ b, one level fewer; of a logarithm what it is the logarithm of.

    H is real: of exp(i b) only the homomorphism is kept, not that it has modulus 1, so a mismatch then says nothing.
    """
    if x in tower.logarithms:
        return tower.logarithms[x]
    if tower.logarithms and (opposite := negative(x)) in tower.logarithms:
        return inverse(tower.logarithms[opposite])
    if len(x) < 2:
        raise TooDeep(f"`exp` nested more than {tower.levels - 1} deep")
    is_real = not any(im for _, im in x)
    tower.opaque = tower.opaque or not is_real
    tower.loose = tower.loose or not is_real
    found = exponential(x)
    if is_real:
        tower.exponents.setdefault(found, x)
    return found


def log(tower: Tower, x: Value) -> Value:
    """A hash that `exp` takes back; log 1 = 0."""
    if x == rational(Fraction(1))[: len(x)]:
        return rational(Fraction(0))[: len(x)]
    if x in tower.exponents:
        return tower.exponents[x]
    found = tower.hashed("log", (x,))
    tower.logarithms[found] = x
    return found


def _logarithm(tower: Tower, x: Value) -> Value:
    """A logarithm as it is written, which may be of a number below 0."""
    tower.loose = True
    return log(tower, x)


_ONE = rational(Fraction(1))


def _sigmoid(tower: Tower, x: Value) -> Value:
    return inverse(plus(_ONE, exp(tower, negative(x))))


def _softplus(tower: Tower, x: Value) -> Value:
    return log(tower, plus(_ONE, exp(tower, x)))


RULES: dict[str, Callable[..., Value]] = {
    "add": lambda t, a, b: plus(a, b), "sub": lambda t, a, b: minus(a, b), "mul": lambda t, a, b: times(a, b),
    "neg": lambda t, a: negative(a), "div": lambda t, a, b: times(a, inverse(b)), "stop": lambda t, a: a,
    "exact_div": lambda t, a, b: times(a, inverse(b)), "pow": Tower.power, "sqrt": Tower.root,
    "exp": exp, "log": _logarithm, "sigmoid": _sigmoid, "softplus": _softplus, "expm1": lambda t, x: minus(exp(t, x), _ONE),
    "tanh": lambda t, x: minus(times(rational(Fraction(2)), _sigmoid(t, plus(x, x))), _ONE),
    "silu": lambda t, x: times(x, _sigmoid(t, x)), "log_sigmoid": lambda t, x: negative(_softplus(t, negative(x))),
    "log1p": lambda t, x: _logarithm(t, plus(_ONE, x)),
    "inv_softplus": lambda t, x: _logarithm(t, minus(exp(t, x), _ONE)),
    "logaddexp": lambda t, a, b: log(t, plus(exp(t, a), exp(t, b))),
    "re": lambda t, x: tuple((re, 0) for re, _ in x), "im": lambda t, x: tuple((im, 0) for _, im in x),
    "conj": lambda t, x: tuple((re, -im % p) for (re, im), p in zip(x, primes(), strict=False)),
}  # fmt: skip

# operators that order decides, given the operand's real value: the expression that they stand for there
BY_ORDER: dict[str, Callable[..., Node]] = {
    "relu": lambda v, x: x if v > 0 else build.ZERO, "abs": lambda v, x: x if v >= 0 else build.neg(x),
    "elu": lambda v, x: x if v > 0 else build.make("expm1", x),
    "clamp": lambda v, x, low, high: build.make("minimum", build.make("maximum", x, low), high),
}  # fmt: skip

_AT_POINTS: dict[str, Callable[[Tower, Node, At], Value]] = {
    "where": Tower.chosen, "maximum": Tower.extreme, "minimum": Tower.extreme, "softmax": Tower.softmax,
    **dict.fromkeys(BY_ORDER, Tower.by_order),
}  # fmt: skip

UNINTERPRETED = frozenset(("sin", "cos", "erf", "gelu", "log2"))
