"""Intervals that hold an expression's value: gates lie in (0, 1), `exp` of what is not positive is at most 1.

Facts come from a claim's `when`: comparisons with a number, of a tensor (for all its points) or of an expression as it
is written. Definitions are opened. Nothing is concluded of trained parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node, reads
from seqdsl.ir.ops import options
from seqdsl.ir.system import System

Bound = Fraction | None  # None: unbounded on that side
Interval = tuple[Bound, Bound]
ALL: Interval = (None, None)
_UNIT: Interval = (Fraction(0), Fraction(1))
_SYMMETRIC: Interval = (Fraction(-1), Fraction(1))
_POSITIVE: Interval = (Fraction(0), None)
_ZERO: Interval = (Fraction(0), Fraction(0))
_DEPTH = 12
_LARGE = 700  # exp of more is no float


@dataclass
class Bounds:
    """Intervals over one system under a condition (a claim's `when`, or None)."""

    system: System
    condition: Node | None = None
    tensors: dict[str, Interval] = field(default_factory=dict)
    exact: dict[Node, Interval] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for fact in build.conjuncts(self.condition) if self.condition is not None else []:
            if fact.op in ("lt", "le", "eq"):
                a, b = fact.args
                self._learn(a, (None, self.of(b)[1]))
                self._learn(b, (self.of(a)[0], None))

    @property
    def contradiction(self) -> Node | None:
        """A conjunct of the condition that no values fulfil beside the others, if one is found."""
        for fact in build.conjuncts(self.condition) if self.condition is not None else []:
            if fact.op in ("lt", "le", "eq") and all(a.dtype != "bool" for a in fact.args):
                (least, most), (low, high) = (self.of(a) for a in fact.args)
                if _above(least, high, fact.op == "lt") or fact.op == "eq" and _above(low, most, False):
                    return fact
        return None

    def _learn(self, node: Node, new: Interval) -> None:
        if node.op == "neg":
            self._learn(node.args[0], negated(new))
        if is_everywhere(self.system, node):
            name = str(node.attr)
            self.tensors[name] = meet(self.tensors.get(name, ALL), new)
        elif node.op != "const":
            self.exact[node] = meet(self.exact.get(node, ALL), new)

    def of(self, node: Node, depth: int = _DEPTH) -> Interval:
        """An interval that holds the value of a real expression."""
        known = self.exact.get(node, ALL)
        return meet(known, self._of(node, depth))

    def _of(self, node: Node, depth: int) -> Interval:
        value = build.value_of(node)
        if value is not None:
            return Fraction(value), Fraction(value)
        if node.dtype == "bool":
            return _UNIT
        if depth == 0 or node.dtype == "complex":
            return ALL
        if node.op in ("index", "size", "first"):
            return _POSITIVE
        if node.op == "const":
            return (Fraction(3), Fraction(4)) if node.attr == "pi" else ALL
        if node.op == "read":
            return self._read(node, depth)
        row = _ROWS.get(node.op)
        return ALL if row is None else row(self, node, depth - 1)

    def _read(self, node: Node, depth: int) -> Interval:
        name = str(node.attr)
        if name in self.tensors:
            if is_everywhere(self.system, node):
                return self.tensors[name]
            outside = self.system.tensors[name].edges  # a base case is no value of the tensor's own
            return ALL if outside else hull(self.tensors[name], _ZERO)
        tensor = self.system.tensors.get(name)
        if tensor is None or tensor.rhs is None or tensor.kind not in ("derived", "const") or tensor.edges:
            return ALL
        if name in {r.attr for r in reads(tensor.rhs)}:
            return ALL
        found = self.of(tensor.rhs, depth - 1)
        return found if self.system.is_inside(node) else hull(found, _ZERO)

    def real_part(self, node: Node, depth: int = _DEPTH) -> Interval:
        """An interval for re(node)."""
        if node.dtype != "complex":
            return self.of(node, depth)
        if depth == 0:
            return ALL
        if node.op == "const":
            return Fraction(0), Fraction(0)
        if node.op in ("add", "sub"):
            a, b = (self.real_part(x, depth - 1) for x in node.args)
            return plus(a, b if node.op == "add" else negated(b))
        if node.op == "neg":
            return negated(self.real_part(node.args[0], depth - 1))
        if node.op in ("mul", "div"):
            x, y = node.args if node.args[1].dtype != "complex" or node.op == "div" else node.args[::-1]
            if y.dtype != "complex":
                scale = self.of(y, depth - 1)
                part = self.real_part(x, depth - 1)
                return times(part, scale if node.op == "mul" else inverted(scale))
        opened = self._definition(node)
        return ALL if opened is None else self.real_part(opened, depth - 1)

    def modulus(self, node: Node, depth: int = _DEPTH) -> Bound:
        """An upper bound of |node|, real or complex; None where none was found."""
        learnt = [i[1] for n, i in self.exact.items() if n.op == "abs" and _same(self.system, n.args[0], node)]
        if learnt and learnt[0] is not None:
            return learnt[0]
        if node.dtype != "complex":
            low, high = self.of(node, depth)
            plain = max(abs(low), abs(high)) if low is not None and high is not None else None
            if plain is not None and plain <= 1:
                return plain
        else:
            plain = None
        return _least(plain, self._modulus(node, depth))

    def _modulus(self, node: Node, depth: int) -> Bound:
        if depth == 0:
            return None
        inner = [self.modulus(a, depth - 1) for a in node.args] if node.op in ("mul", "add", "sub", "neg") else []
        if node.op == "const":
            return Fraction(1) if node.attr == "i" else None
        if node.op == "exp":
            return exponential(self.real_part(node.args[0], depth - 1))[1]
        if node.op == "mul":
            return None if None in inner else inner[0] * inner[1]  # type: ignore[operator]
        if node.op in ("add", "sub"):
            return None if None in inner else inner[0] + inner[1]  # type: ignore[operator]
        if node.op in ("neg", "conj"):
            return self.modulus(node.args[0], depth - 1)
        if node.op == "where":
            a, b = (self.modulus(x, depth - 1) for x in node.args[1:])
            return None if a is None or b is None else max(a, b)
        opened = self._definition(node)
        return None if opened is None else self.modulus(opened, depth - 1)

    def _definition(self, node: Node) -> Node | None:
        tensor = self.system.tensors.get(str(node.attr)) if node.op == "read" else None
        if tensor is None or tensor.kind != "derived" or tensor.edges or tensor.rhs is None:
            return None
        at = dict(zip(tensor.indices, node.args, strict=True))
        if tensor.name in {r.attr for r in reads(tensor.rhs)} or not build.can_substitute(tensor.rhs, at):
            return None
        return build.substitute(tensor.rhs, at)


def _above(a: Bound, b: Bound, or_equal: bool) -> bool:
    return a is not None and b is not None and (a > b or or_equal and a == b)


def _same(system: System, a: Node, b: Node) -> bool:
    """Is what a condition says of |a| true of |b|? Outside its axis a read is 0, and no larger."""
    if a is b:
        return True
    return is_everywhere(system, a) and b.op == "read" and a.attr == b.attr and not system.tensors[str(a.attr)].edges


def is_everywhere(system: System, node: Node) -> bool:
    """Is it a read that meets every entry of its tensor, as its indices go on?"""
    there = node.op == "read" and str(node.attr) in system.tensors
    return there and len({*node.args}) == len(node.args) and system.is_inside(node)


def _least(a: Bound, b: Bound) -> Bound:
    return b if a is None else a if b is None else min(a, b)


def meet(a: Interval, b: Interval) -> Interval:
    """The intersection."""
    low = b[0] if a[0] is None else a[0] if b[0] is None else max(a[0], b[0])
    return low, _least(a[1], b[1])


def hull(a: Interval, b: Interval) -> Interval:
    """The least interval that holds both."""
    low = None if a[0] is None or b[0] is None else min(a[0], b[0])
    return low, None if a[1] is None or b[1] is None else max(a[1], b[1])


def negated(a: Interval) -> Interval:
    """-a"""
    return None if a[1] is None else -a[1], None if a[0] is None else -a[0]


def plus(a: Interval, b: Interval) -> Interval:
    """a + b"""
    low = None if a[0] is None or b[0] is None else a[0] + b[0]
    return low, None if a[1] is None or b[1] is None else a[1] + b[1]


def times(a: Interval, b: Interval) -> Interval:
    """a * b"""
    ends = [_times(x, y, sx, sy) for x, sx in ((a[0], -1), (a[1], 1)) for y, sy in ((b[0], -1), (b[1], 1))]
    low = None if any(e == -math.inf for e in ends) else min(e for e in ends)
    high = None if any(e == math.inf for e in ends) else max(e for e in ends)
    return low, high  # type: ignore[return-value]


def _times(x: Bound, y: Bound, sx: int, sy: int) -> Fraction | float:
    if x == 0 or y == 0:
        return Fraction(0)
    if x is not None and y is not None:
        return x * y
    sign_x = sx if x is None else (1 if x > 0 else -1)
    sign_y = sy if y is None else (1 if y > 0 else -1)
    return math.inf * sign_x * sign_y


def inverted(a: Interval) -> Interval:
    """1 / a where a keeps its sign."""
    if a[0] is not None and a[0] >= 0:
        return (Fraction(0) if a[1] is None else 1 / a[1]) if a[1] != 0 else None, None if a[0] == 0 else 1 / a[0]
    if a[1] is not None and a[1] <= 0:
        return negated(inverted(negated(a)))
    return ALL


def exponential(a: Interval) -> Interval:
    """exp(a), rounded outwards."""
    return (Fraction(0) if a[0] is None else _exp(a[0], -1)), (None if a[1] is None or a[1] > _LARGE else _exp(a[1], 1))


def _exp(x: Fraction, side: int) -> Fraction:
    if x == 0:
        return Fraction(1)
    if x > _LARGE:
        return Fraction(10) ** 304
    value = Fraction(math.exp(x)) * (1 + side * Fraction(1, 10**12))
    return min(value, Fraction(1)) if x < 0 else max(value, Fraction(1))


def _arguments(bounds: Bounds, node: Node, depth: int) -> list[Interval]:
    return [bounds.of(a, depth) for a in node.args]


def _product(bounds: Bounds, node: Node, depth: int) -> Interval:
    a, b = node.args
    if a is b:
        low, high = bounds.of(a, depth)
        return Fraction(0), None if low is None or high is None else max(low * low, high * high)
    return times(*_arguments(bounds, node, depth))


def _quotient(bounds: Bounds, node: Node, depth: int) -> Interval:
    a, b = _arguments(bounds, node, depth)
    result = times(a, inverted(b))
    x, y = node.args
    if a[0] is not None and a[0] >= 0 and y.op == "add" and x in y.args:  # 0 <= x / (x + c) <= 1
        other = y.args[1] if y.args[0] is x else y.args[0]
        low = bounds.of(other, depth)[0]
        return meet(result, _UNIT) if low is not None and low >= 0 else result
    return result


def _high_power(a: Interval, n: int) -> Interval:
    """a ^ n where n is too large for it to be written out."""
    zero, one = Fraction(0), Fraction(1)
    if n % 2 == 0:
        return zero, one if a[0] is not None and a[1] is not None and max(-a[0], a[1]) <= 1 else None
    low = None if a[0] is None or a[0] < -1 else -one if a[0] < 0 else zero
    return low, None if a[1] is None or a[1] > 1 else one if a[1] > 0 else zero


def _power(bounds: Bounds, node: Node, depth: int) -> Interval:
    base, exponent = _arguments(bounds, node, depth)
    if exponent[0] == exponent[1] and exponent[0] is not None and exponent[0].denominator == 1 and exponent[0] > 0:
        n = int(exponent[0])
        if n > _LARGE:
            return _high_power(base, n)
        if n % 2 == 0:
            large = None if base[0] is None or base[1] is None else max(abs(base[0]), abs(base[1])) ** n
            return Fraction(0), large
        return (None if base[0] is None else base[0] ** n), (None if base[1] is None else base[1] ** n)
    if base[0] is not None and base[0] >= 1:  # b^e = exp(e log b), growing with e
        low = None if exponent[0] is None else Fraction(1) if exponent[0] >= 0 else None
        top = None if exponent[1] is None or exponent[1] > 0 else Fraction(1)
        if base[0] == base[1] and exponent[1] is not None and exponent[1].denominator == 1 and abs(exponent[1]) < 99:
            top = base[0] ** int(exponent[1])
        return low or Fraction(0), top
    if base[0] is not None and base[0] >= 0:
        unit = base[1] is not None and base[1] <= 1 and exponent[0] is not None and exponent[0] >= 0
        return Fraction(0), Fraction(1) if unit else None
    return ALL


def _monotone(f: Callable[[Interval], Interval], into: Interval = ALL) -> Callable[[Bounds, Node, int], Interval]:
    return lambda bounds, node, depth: meet(into, f(bounds.of(node.args[0], depth)))


def _positive_part(a: Interval) -> Interval:
    zero = Fraction(0)
    return zero if a[0] is None else max(zero, a[0]), None if a[1] is None else max(zero, a[1])


def _absolute(a: Interval) -> Interval:
    if a[0] is not None and a[0] >= 0:
        return a
    if a[1] is not None and a[1] <= 0:
        return negated(a)
    return Fraction(0), None if a[0] is None or a[1] is None else max(-a[0], a[1])


def _sign_of(a: Interval) -> Interval:
    """The sign is kept: for odd growing functions and sums of terms of one sign."""
    zero = Fraction(0)
    return zero if a[0] is not None and a[0] >= 0 else None, zero if a[1] is not None and a[1] <= 0 else None


def _log_of(a: Interval) -> Interval:
    zero = Fraction(0)
    return zero if a[0] is not None and a[0] >= 1 else None, zero if a[1] is not None and a[1] <= 1 else None


def _sigmoid_of(a: Interval) -> Interval:
    half = Fraction(1, 2)
    return half if a[0] is not None and a[0] >= 0 else Fraction(0), half if a[1] is not None and a[1] <= 0 else Fraction(1)


def _pairwise(f: Callable[[Interval, Interval], Interval]) -> Callable[[Bounds, Node, int], Interval]:
    return lambda bounds, node, depth: f(*_arguments(bounds, node, depth))


def _larger(a: Interval, b: Interval) -> Interval:
    low = b[0] if a[0] is None else a[0] if b[0] is None else max(a[0], b[0])
    return low, None if a[1] is None or b[1] is None else max(a[1], b[1])


def _smaller(a: Interval, b: Interval) -> Interval:
    return negated(_larger(negated(a), negated(b)))


def _clamped(x: Interval, low: Interval, high: Interval) -> Interval:
    """min(max(x, low), high): where low is above high, it is high."""
    return _smaller(_larger(x, low), high)


def _unit_vector(bounds: Bounds, node: Node, depth: int) -> Interval:
    """x / sqrt(sum of squares + eps)"""
    return _SYMMETRIC if Fraction(options(node)["eps"]) >= 0 else ALL


def _largest(bounds: Bounds, node: Node, depth: int) -> Interval:
    """-inf where the guard leaves nothing."""
    low, high = bounds.of(node.args[0], depth)
    return low if node.args[1] is build.TRUE else None, high


def _constantly(found: Interval) -> Callable[[Bounds, Node, int], Interval]:
    return lambda bounds, node, depth: found


_ROWS: dict[str, Callable[[Bounds, Node, int], Interval]] = {
    "add": _pairwise(plus), "sub": _pairwise(lambda a, b: plus(a, negated(b))), "mul": _product, "div": _quotient,
    "exact_div": _quotient, "pow": _power, "neg": _monotone(negated), "exp": _monotone(exponential),
    "expm1": _monotone(lambda a: plus(exponential(a), (Fraction(-1), Fraction(-1)))), "log": _monotone(_log_of),
    "sigmoid": _monotone(_sigmoid_of), "tanh": _monotone(_sign_of, _SYMMETRIC), "softplus": _constantly(_POSITIVE),
    "log_sigmoid": _constantly((None, Fraction(0))), "relu": _monotone(_positive_part), "sin": _constantly(_SYMMETRIC),
    "cos": _constantly(_SYMMETRIC), "erf": _monotone(_sign_of, _SYMMETRIC), "softmax": _constantly(_UNIT),
    "abs": lambda b, n, d: _absolute(b.of(n.args[0], d)) if n.args[0].dtype != "complex" else _POSITIVE,
    "sqrt": _constantly(_POSITIVE), "l2_norm": _unit_vector, "sign": _monotone(_sign_of, _SYMMETRIC),
    "step": _constantly(_UNIT), "maximum": _pairwise(_larger), "stop": _monotone(lambda a: a),
    "minimum": _pairwise(_smaller),
    "where": lambda b, n, d: hull(b.of(n.args[1], d), b.of(n.args[2], d)), "sum": _monotone(_sign_of),
    "mean": _monotone(lambda a: hull(a, _ZERO)), "max": _largest,
    "clamp": lambda b, n, d: _clamped(*_arguments(b, n, d)), "mod": _pairwise(lambda a, b: hull(b, _ZERO)),
    "elu": _constantly((Fraction(-1), None)), "rank": _constantly(_POSITIVE), "bit_length": _constantly(_POSITIVE),
    "floor_div": _pairwise(lambda a, b: _sign_of(a) if b[0] is not None and b[0] >= 0 else ALL),
}
