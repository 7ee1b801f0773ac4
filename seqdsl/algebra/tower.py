"""Evaluation in a tower of prime fields, where `exp` is an exact homomorphism (DERIVATIONS 6.3).

The primes are chained, p[i] = k p[i+1] + 1, so that the field of p[i] has elements of order p[i+1]. A value is its
residues over all of them (a Gaussian residue x + i y over each: every p is 3 modulo 4), and exp(x) at level i is
G[i] ^ x[i+1]: exp(a + b) = exp(a) exp(b) without a rounding. Each `exp` uses up the last level. What is decided by
order, `max`, `where`, a guard, and what is whole, a position, comes from the exact evaluation of the same node beside
it (`exact.World`): the order oracle.

`sqrt` is multiplicative on squares; exp(log p) = p, log(exp x) = x and -inf = log 0; otherwise `log`, `sin`, `cos` and
`erf` are uninterpreted, a keyed hash of their operand: equal operands give equal values, and nothing more is known of
them. An evaluation that met one of these is `opaque`: a mismatch then says nothing. Where residues obey laws that numbers
do not, or have a value where numbers have none, it is `loose` as well, and equal residues say nothing by themselves: a root
has no sign in a field, exp(i b) no modulus, an infinity cancels, and a logarithm is defined below 0.

Architecture invariant: shares no code with the canonical form or the interpreter. Errors: `NotExact`.
Source: Schwartz 1980 and Zippel 1979 for polynomials; with `exp` the bound is heuristic (three draws).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from hashlib import blake2b
from math import isqrt

from seqdsl.algebra.exact import BUDGET, NORMS, World, evaluate, expanded, points, position, row_of
from seqdsl.algebra.numbers import Complex, NotExact, Number, TooMuch, Undefined, real
from seqdsl.ir import build
from seqdsl.ir.node import Node, read_names
from seqdsl.ir.ops import OPS

LEVELS = 8
_SMALLEST = 2**61
_FACTORED = 10**6  # numbers below are searched for square factors
Residue = tuple[int, int]  # x + i y
Value = tuple[Residue, ...]  # by level; `exp` shortens it


@cache
def primes() -> tuple[int, ...]:
    """The tower, largest first: every prime but the last is one more than a multiple of the next; all 3 modulo 4."""
    found = [_next_prime(_SMALLEST + 3, 4)]
    while len(found) < LEVELS:
        found.append(_next_prime(2 * found[-1] + 1, 4 * found[-1]))
    return tuple(reversed(found))


def _next_prime(start: int, step: int) -> int:
    while not _is_prime(start):
        start += step
    return start


def _is_prime(n: int) -> bool:
    """Miller and Rabin, to the first twelve prime bases."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if any(n % b == 0 for b in bases):
        return n in bases
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(n, pow(b, odd, n), twos) for b in bases)


def _passes(n: int, x: int, twos: int) -> bool:
    if x in (1, n - 1):
        return True
    for _ in range(twos - 1):
        x = x * x % n
        if x == n - 1:
            return True
    return False


@cache
def _generator(level: int, base: int) -> int:
    """An element of order p[level + 1] in the field of p[level]."""
    p, q = primes()[level], primes()[level + 1]
    found = pow(base, (p - 1) // q, p)
    assert found != 1
    return found


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
    done: dict[tuple[str, tuple[int, ...]], Value] = field(default_factory=dict)
    totals: dict[object, Value] = field(default_factory=dict)

    def deepen(self) -> None:
        """Begin again, with twice the levels, or as many as there are."""
        self.levels = min(2 * self.levels, LEVELS)
        for known in (self.logarithms, self.exponents, self.done, self.totals):
            known.clear()

    def value(self, node: Node, at: Mapping[str, int]) -> Value:
        """The residues of a real or complex expression where the free indices are at `at`."""
        op = node.op
        self.spent += 1
        if self.spent > BUDGET:
            raise TooMuch("more than fits an exact evaluation")
        if op == "read":
            return self._read(node, at)
        if op == "sqrt" and not read_names(node):
            return self._root_of_number(node, at)
        if op in RULES:
            return RULES[op](self, *[self.value(a, at) for a in node.args])
        if op == "where":
            chosen = evaluate(node.args[0], at, self.world) != 0
            return self.value(node.args[1 if chosen else 2], at)
        if op in ("maximum", "minimum"):
            a, b = (real(evaluate(x, at, self.world)) for x in node.args)
            return self.value(node.args[0 if (a >= b) == (op == "maximum") else 1], at)
        if OPS[op].binding == "reduce":
            row = row_of(node, at)
            if row not in self.totals:
                self.totals[row] = self._reduce(node, at)
            return self.totals[row]
        if op in BY_ORDER:
            return self.value(BY_ORDER[op](real(evaluate(node.args[0], at, self.world)), *node.args), at)
        if op == "softmax":
            return self._softmax(node, at)
        if op in NORMS:
            return self.value(expanded(node), at)
        if op in UNINTERPRETED:
            self.loose = self.loose or op == "log2"
            return self._hashed(op, tuple(self.value(a, at) for a in node.args))
        return self._whole(node, at)

    def _whole(self, node: Node, at: Mapping[str, int]) -> Value:
        """A rational that the exact evaluation gives: a constant, a position, a bracket, a rounded number."""
        found = evaluate(node, at, self.world)
        parts = (found.re, found.im) if isinstance(found, Complex) else (found, Fraction(0))
        if not all(isinstance(x, Fraction) for x in parts):
            if node.op == "const" and node.attr == "pi":
                return self._hashed("pi", ())
            if node.op == "const":
                self.loose = True
                return negative(log(self, self.rational(Fraction(0))))
            raise NotExact(f"`{node.op}` has no residue")
        return self.rational(*parts)  # type: ignore[arg-type]

    def rational(self, re: Fraction, im: Fraction = Fraction(0)) -> Value:
        """The residues of a (Gaussian) rational, at the levels that this evaluation begins with."""
        return rational(re, im)[: self.levels]

    def _root_of_number(self, node: Node, at: Mapping[str, int]) -> Value:
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

    def _read(self, node: Node, at: Mapping[str, int]) -> Value:
        point = tuple([position(a, at, self.world) for a in node.args])
        name = str(node.attr)
        key = (name, point)
        if key not in self.done:
            opened = self.world.opened(name, point)
            if opened is not None:
                self.done[key] = self.value(*opened)
            else:
                self.done[key] = self._of_number(self.world.value(name, point, node.dtype))
        return self.done[key]

    def _of_number(self, x: Number) -> Value:
        parts = (x.re, x.im) if isinstance(x, Complex) else (x, Fraction(0))
        if not all(isinstance(v, Fraction) for v in parts):
            raise NotExact("a number that is not rational")
        return self.rational(*parts)  # type: ignore[arg-type]

    def _reduce(self, node: Node, at: Mapping[str, int]) -> Value:
        body, guard = node.args
        here = points(node, guard, at, self.world)
        if node.op in ("sum", "mean", "prod", "logsumexp"):
            values = [self.value(body, p) for p in here]
            if node.op == "logsumexp":
                return log(self, total([exp(self, v) for v in values]))
            if node.op == "prod":
                return _folded(times, values, rational(Fraction(1)))
            scale = Fraction(1, len(values)) if node.op == "mean" and values else Fraction(1)
            return times(total(values), rational(scale))
        if node.op in ("max", "min") and here:
            pick = max if node.op == "max" else min
            return self.value(body, pick(here, key=lambda p: real(evaluate(body, p, self.world))))
        return self._whole(node, at)

    def _softmax(self, node: Node, at: Mapping[str, int]) -> Value:
        body, guard = node.args
        if evaluate(guard, at, self.world) == 0:
            return rational(Fraction(0))
        row = row_of(node, at)
        if row not in self.totals:
            self.totals[row] = total([exp(self, self.value(body, p)) for p in points(node, guard, at, self.world)])
        return times(exp(self, self.value(body, at)), inverse(self.totals[row]))

    def _hashed(self, name: str, operands: tuple[Value, ...]) -> Value:
        self.opaque = True
        text = f"{name}:{operands}".encode()
        levels = range(min((len(v) for v in operands), default=self.levels))
        keyed = (int.from_bytes(blake2b(text, salt=bytes([i])).digest(), "big") for i in levels)
        return tuple((h % primes()[i], 0) for i, h in enumerate(keyed))

    def root(self, x: Value) -> Value:
        """The square root: of a square the one that is itself a square; of anything else a hash."""
        self.opaque = self.loose = True
        roots = []
        for (re, im), p in zip(x, primes(), strict=False):
            root = pow(re, (p + 1) // 4, p)
            if im or root * root % p != re:
                return self._hashed("sqrt", (x,))
            roots.append((root, 0))
        return tuple(roots)

    def power(self, x: Value, y: Value) -> Value:
        """x ^ y: for a whole exponent by multiplication, else exp(y log x)."""
        exponent = _small(y)
        if exponent is None:
            half = _small(times(y, rational(Fraction(2))))
            return self.power(self.root(x), rational(Fraction(half))) if half is not None else exp(
                self, times(y, _logarithm(self, x))
            )
        return _folded(times, [x if exponent >= 0 else inverse(x)] * abs(exponent), rational(Fraction(1)))


@lru_cache(10_000)
def rational(re: Fraction, im: Fraction = Fraction(0)) -> Value:
    """The residues of a (Gaussian) rational."""
    return tuple((_residue(re, p), _residue(im, p)) for p in primes())


def _residue(x: Fraction, p: int) -> int:
    return x.numerator * pow(x.denominator, -1, p) % p


def _small(x: Value) -> int | None:
    """The whole number between -200 and 200 that these are the residues of."""
    re, p = x[0][0], primes()[0]
    n = re if re < p // 2 else re - p
    return n if abs(n) < 200 and x == rational(Fraction(n))[: len(x)] else None


def plus(a: Value, b: Value) -> Value:
    """a + b"""
    return tuple([((x + u) % p, (y + v) % p) for (x, y), (u, v), p in zip(a, b, primes(), strict=False)])


def times(a: Value, b: Value) -> Value:
    """a * b"""
    return tuple(
        [
            ((x * u - y * v) % p, (x * v + y * u) % p) if y or v else (x * u % p, 0)
            for (x, y), (u, v), p in zip(a, b, primes(), strict=False)
        ]
    )


def negative(a: Value) -> Value:
    """-a"""
    return tuple((-x % p, -y % p) for (x, y), p in zip(a, primes(), strict=False))


def inverse(a: Value) -> Value:
    """1 / a. Errors: `Undefined` for 0 in some field, where the draw is thrown away."""
    result = []
    for (x, y), p in zip(a, primes(), strict=False):
        norm = (x * x + y * y) % p
        if norm == 0:
            raise Undefined("division by zero")
        scale = pow(norm, -1, p)
        result.append((x * scale % p, -y * scale % p))
    return tuple(result)


def total(values: list[Value]) -> Value:
    """The sum."""
    return _folded(plus, values, rational(Fraction(0)))


def _folded(op: Callable[[Value, Value], Value], values: list[Value], start: Value) -> Value:
    for v in values:
        start = op(start, v)
    return start


def exp(tower: Tower, x: Value) -> Value:
    """exp(a + i b) = G ^ a * H ^ b, one level fewer; of a logarithm what it is the logarithm of.

    H is real: of exp(i b) only the homomorphism is kept, not that it has modulus 1, so a mismatch then says nothing.
    """
    known, opposite = tower.logarithms.get(x), tower.logarithms.get(negative(x))
    if known is not None:
        return known
    if opposite is not None:
        return inverse(opposite)
    if len(x) < 2:
        raise TooDeep(f"`exp` nested more than {tower.levels - 1} deep")
    is_real = not any(im for _, im in x)
    tower.opaque = tower.opaque or not is_real
    tower.loose = tower.loose or not is_real
    result = []
    for level, (re, im) in enumerate(x[1:]):
        p = primes()[level]
        real_part = pow(_generator(level, 3), re, p)
        result.append((real_part * pow(_generator(level, 5), im, p) % p if im else real_part, 0))
    found = tuple(result)
    if is_real:
        tower.exponents.setdefault(found, x)
    return found


def log(tower: Tower, x: Value) -> Value:
    """A hash that `exp` takes back; log 1 = 0."""
    if x == rational(Fraction(1))[: len(x)]:
        return rational(Fraction(0))[: len(x)]
    if x in tower.exponents:
        return tower.exponents[x]
    found = tower._hashed("log", (x,))
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


def _minus(a: Value, b: Value) -> Value:
    return plus(a, negative(b))


RULES: dict[str, Callable[..., Value]] = {
    "add": lambda t, a, b: plus(a, b), "sub": lambda t, a, b: _minus(a, b), "mul": lambda t, a, b: times(a, b),
    "neg": lambda t, a: negative(a), "div": lambda t, a, b: times(a, inverse(b)), "stop": lambda t, a: a,
    "exact_div": lambda t, a, b: times(a, inverse(b)), "pow": Tower.power, "sqrt": Tower.root,
    "exp": exp, "log": _logarithm, "sigmoid": _sigmoid, "softplus": _softplus, "expm1": lambda t, x: _minus(exp(t, x), _ONE),
    "tanh": lambda t, x: _minus(times(rational(Fraction(2)), _sigmoid(t, plus(x, x))), _ONE),
    "silu": lambda t, x: times(x, _sigmoid(t, x)), "log_sigmoid": lambda t, x: negative(_softplus(t, negative(x))),
    "log1p": lambda t, x: _logarithm(t, plus(_ONE, x)),
    "inv_softplus": lambda t, x: _logarithm(t, _minus(exp(t, x), _ONE)),
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

UNINTERPRETED = frozenset(("sin", "cos", "erf", "gelu", "log2"))
