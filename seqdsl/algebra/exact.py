"""Evaluation of index expressions in exact rationals, and to 50 digits where a function leaves them. Never in floats.

Axes get small lengths and every read of a tensor at a point is one number, drawn once, by a hash of the seed: two
expressions that are equal for all inputs have equal values, whatever stands outside an axis. A rational result is
exact; a `Decimal` in it says that some function was evaluated to 50 digits.

Architecture invariant: shares no code with the interpreter (numpy, float64) or with the canonical form that it checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import product
from random import Random
from typing import Union

from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, bound
from seqdsl.ir.system import System

Real = Union[Fraction, Decimal]
DIGITS = 50


class NotExact(Exception):
    """An operator this evaluator does not know, or a value outside a function's domain."""


@dataclass(frozen=True)
class Complex:
    """re + i im"""

    re: Real
    im: Real


Number = Union[Fraction, Decimal, Complex]


@dataclass
class World:
    """What inputs and axes are. `draw(name, point)` overrides the random values; `local` are given tensors."""

    system: System
    seed: int = 0
    length: int = 2
    draw: Callable[[str, tuple[int, ...]], Number | None] = lambda name, point: None
    local: Mapping[str, Node] = field(default_factory=dict)
    small: bool = False
    drawn: dict[tuple[str, tuple[int, ...]], Number] = field(default_factory=dict)

    def size(self, name: str) -> int:
        """The length of an index's axis: small, or what its formula says."""
        index = self.system.index(name.partition("#")[0] if "#" in name else name)
        if index.axis != index.name:
            return self.size(index.axis)
        if index.size is not None:
            try:
                return max(1, min(4, int(real(evaluate(index.size, {}, self)))))
            except (NotExact, RecursionError, ZeroDivisionError):
                pass
        return self.length + (sum(map(ord, index.name)) % 2)

    def value(self, name: str, point: tuple[int, ...], dtype: str) -> Number:
        """A tensor at a point."""
        if (name, point) not in self.drawn:
            given = self.draw(name, point)
            self.drawn[name, point] = self._random(name, point, dtype) if given is None else given
        return self.drawn[name, point]

    def _random(self, name: str, point: tuple[int, ...], dtype: str) -> Number:
        rng = Random(f"{self.seed}:{name}:{point}")
        if dtype == "bool":
            return Fraction(rng.randint(0, 1))
        if dtype == "int":
            return Fraction(rng.randint(0, 2))
        if dtype == "complex":
            return Complex(_rational(rng), _rational(rng))
        return Fraction(rng.randint(-2, 2)) if self.small else _rational(rng)


def _rational(rng: Random) -> Fraction:
    return Fraction(rng.choice([k for k in range(-9, 10) if k]), rng.choice((1, 2, 3, 4, 5)))


def real(value: Number) -> Real:
    """The value of a real expression."""
    if isinstance(value, Complex):
        if value.im != 0:
            raise NotExact("a complex number where a real one is needed")
        return value.re
    return value


def decimal(value: Real) -> Decimal:
    """To 50 digits."""
    return value if isinstance(value, Decimal) else Decimal(value.numerator) / Decimal(value.denominator)


def _pair(a: Real, b: Real) -> tuple[Decimal, Decimal]:
    return decimal(a), decimal(b)


def plus(a: Number, b: Number) -> Number:
    """a + b"""
    if isinstance(a, Complex) or isinstance(b, Complex):
        x, y = _as_complex(a), _as_complex(b)
        return Complex(_plus(x.re, y.re), _plus(x.im, y.im))
    return _plus(a, b)


def _plus(a: Real, b: Real) -> Real:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a + b
    x, y = _pair(a, b)
    return x + y


def times(a: Number, b: Number) -> Number:
    """a * b"""
    if isinstance(a, Complex) or isinstance(b, Complex):
        x, y = _as_complex(a), _as_complex(b)
        return Complex(_plus(_times(x.re, y.re), -_times(x.im, y.im)), _plus(_times(x.re, y.im), _times(x.im, y.re)))
    return _times(a, b)


def _times(a: Real, b: Real) -> Real:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a * b
    x, y = _pair(a, b)
    return x * y


def inverse(a: Number) -> Number:
    """1 / a"""
    if isinstance(a, Complex):
        norm = _plus(_times(a.re, a.re), _times(a.im, a.im))
        scale = real(inverse(norm))
        return Complex(_times(a.re, scale), _times(-a.im, scale))
    if a == 0:
        raise NotExact("division by zero")
    return 1 / a if isinstance(a, Fraction) else Decimal(1) / a


def negative(a: Number) -> Number:
    """-a"""
    return Complex(-a.re, -a.im) if isinstance(a, Complex) else -a


def _as_complex(a: Number) -> Complex:
    return a if isinstance(a, Complex) else Complex(a, Fraction(0))


def evaluate(node: Node, at: Mapping[str, int], world: World) -> Number:
    """The value where the free indices are at `at`. Raises `NotExact`."""
    with localcontext() as context:
        context.prec = DIGITS
        context.Emax, context.Emin = 10**9, -(10**9)
        return _evaluate(node, dict(at), world)


def _evaluate(node: Node, at: dict[str, int], world: World) -> Number:
    op = node.op
    if op == "const":
        return _constant(node)
    if op == "index":
        return Fraction(at[str(node.attr)])
    if op == "size":
        return Fraction(world.size(str(node.attr)))
    if op == "first":
        return Fraction(0)
    if op == "option":
        return Fraction(2)
    if op == "read":
        point = tuple(int(real(_evaluate(a, at, world))) for a in node.args)
        return world.value(str(node.attr), point, node.dtype)
    if op == "where":
        return _evaluate(node.args[1 if _evaluate(node.args[0], at, world) != 0 else 2], at, world)
    if OPS[op].binding == "reduce":
        return _reduce(node, at, world)
    if op == "softmax":
        return _softmax(node, at, world)
    row = FUNCTIONS.get(op)
    if row is None:
        raise NotExact(f"`{op}`")
    return row(*(_evaluate(a, at, world) for a in node.args))


def _constant(node: Node) -> Number:
    value = node.attr
    if value == "i" and isinstance(value, str):
        return Complex(Fraction(0), Fraction(1))
    if isinstance(value, str):
        if value == "inf":
            return Decimal("Infinity")
        return _pi()
    return Fraction(int(value)) if isinstance(value, bool) else Fraction(value)


def points(node: Node, guard: Node, at: Mapping[str, int], world: World) -> Iterator[dict[str, int]]:
    """The bound points of a reduction at which the guard holds, in row-major order."""
    names = bound(node)
    for point in product(*(range(world.size(n)) for n in names)):
        here = {**at, **dict(zip(names, point, strict=True))}
        if _evaluate(guard, here, world) != 0:
            yield here


def _reduce(node: Node, at: Mapping[str, int], world: World) -> Number:
    body, guard = node.args
    values = [_evaluate(body, here, world) for here in points(node, guard, at, world)]
    if node.op in ("sum", "mean"):
        total = _fold(plus, values, Fraction(0))
        return total if node.op == "sum" or not values else times(total, Fraction(1, len(values)))
    if node.op == "prod":
        return _fold(times, values, Fraction(1))
    reals = [real(v) for v in values]
    if node.op in ("any", "all"):
        return Fraction(int((any if node.op == "any" else all)(v != 0 for v in reals)))
    if node.op in ("max", "min"):
        empty = Decimal("-Infinity" if node.op == "max" else "Infinity")
        return (max if node.op == "max" else min)(reals, default=empty)
    if node.op == "logsumexp":
        return _log(_fold(plus, [_exp(v) for v in reals], Fraction(0)))
    if node.op == "argmax" and reals:
        return Fraction(reals.index(max(reals)))
    raise NotExact(f"`{node.op}`")


def _softmax(node: Node, at: Mapping[str, int], world: World) -> Number:
    body, guard = node.args
    if _evaluate(guard, dict(at), world) == 0:
        return Fraction(0)
    total = _fold(plus, [_exp(_evaluate(body, here, world)) for here in points(node, guard, at, world)], Fraction(0))
    return times(_exp(_evaluate(body, dict(at), world)), inverse(total))


def _fold(op: Callable[[Number, Number], Number], values: Iterable[Number], start: Number) -> Number:
    result = start
    for v in values:
        result = op(result, v)
    return result


# -- functions -----------------------------------------------------------------------------------------------------


def _exp(x: Number) -> Number:
    if isinstance(x, Complex):
        scale = real(_exp(x.re))
        sine, cosine = _sine_cosine(decimal(x.im))
        return Complex(_times(scale, cosine), _times(scale, sine))
    return Fraction(1) if x == 0 else decimal(x).exp()


def _log(x: Number) -> Number:
    value = real(x)
    if value == 1:
        return Fraction(0)
    if value < 0:
        raise NotExact("the logarithm of a negative number")
    return decimal(value).ln()


def _sqrt(x: Number) -> Number:
    value = real(x)
    if value < 0:
        raise NotExact("the root of a negative number")
    return Fraction(int(value)) if value in (0, 1) else decimal(value).sqrt()


def _power(a: Number, b: Number) -> Number:
    exponent = real(b)
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and abs(exponent) < 200:
        base = a if exponent >= 0 else inverse(a)
        return _fold(times, [base] * abs(int(exponent)), Fraction(1))
    return _exp(times(exponent, _log(a)))


def _pi() -> Decimal:
    """Machin's formula."""
    def arctan(n: int) -> Decimal:
        x = Decimal(1) / n
        total, power, k = x, x, 1
        while abs(power) > Decimal(10) ** -(DIGITS + 5):
            power = -power / (n * n)
            k += 2
            total += power / k
        return total

    return 16 * arctan(5) - 4 * arctan(239)


def _sine_cosine(x: Decimal) -> tuple[Decimal, Decimal]:
    """By the power series of a small part of the angle, doubled back."""
    halvings = 0
    while abs(x) > Decimal("0.1"):
        x, halvings = x / 2, halvings + 1
    sine, cosine, term, k = x, Decimal(1), x, 1
    while abs(term) > Decimal(10) ** -(DIGITS + 5):
        term = term * x / (k + 1)
        k += 1
        sign = -1 if k % 4 in (2, 3) else 1
        if k % 2:
            sine += sign * term
        else:
            cosine += sign * term
    for _ in range(halvings):
        sine, cosine = 2 * sine * cosine, cosine * cosine - sine * sine
    return sine, cosine


def _erf(x: Number) -> Number:
    value = decimal(real(x))
    term, total, k = value, value, 0
    while abs(term) > Decimal(10) ** -(DIGITS + 5) and k < 4000:
        k += 1
        term = -term * value * value / k
        total += term / (2 * k + 1)
    return 2 * total / _pi().sqrt()


def _sigmoid(x: Number) -> Number:
    return inverse(plus(Fraction(1), _exp(negative(x))))


def _softplus(x: Number) -> Number:
    return _log(plus(Fraction(1), _exp(x)))


def _floor(x: Number) -> Fraction:
    value = real(x)
    return Fraction(value.__floor__())


def _compare(test: Callable[[Real, Real], bool]) -> Callable[[Number, Number], Number]:
    return lambda a, b: Fraction(int(test(real(a), real(b))))


def _bits(op: Callable[[int, int], int]) -> Callable[[Number, Number], Number]:
    return lambda a, b: Fraction(op(int(real(a)), int(real(b))))


def _absolute(x: Number) -> Number:
    if isinstance(x, Complex):
        return _sqrt(_plus(_times(x.re, x.re), _times(x.im, x.im)))
    return x if x >= 0 else -x


def _round(x: Number) -> Number:
    value = real(x)
    return Fraction(round(value) if isinstance(value, Fraction) else int(value.to_integral_value()))


def _gelu(x: Number) -> Number:
    half = plus(Fraction(1), _erf(times(x, inverse(_sqrt(Fraction(2))))))
    return times(times(Fraction(1, 2), x), half)


FUNCTIONS: dict[str, Callable[..., Number]] = {
    "add": plus, "sub": lambda a, b: plus(a, negative(b)), "mul": times, "neg": negative,
    "div": lambda a, b: times(a, inverse(b)), "exact_div": lambda a, b: times(a, inverse(b)), "pow": _power,
    "floor_div": lambda a, b: _floor(times(a, inverse(b))),
    "mod": lambda a, b: plus(a, negative(times(b, _floor(times(a, inverse(b)))))),
    "maximum": lambda a, b: max(real(a), real(b)), "minimum": lambda a, b: min(real(a), real(b)),
    "lt": _compare(lambda a, b: a < b), "le": _compare(lambda a, b: a <= b),
    "eq": lambda a, b: Fraction(int(a == b)), "ne": lambda a, b: Fraction(int(a != b)),
    "and": lambda a, b: Fraction(int(a != 0 and b != 0)), "or": lambda a, b: Fraction(int(a != 0 or b != 0)),
    "not": lambda a: Fraction(int(a == 0)), "stop": lambda a: a,
    "exp": _exp, "log": _log, "sqrt": _sqrt, "abs": _absolute, "erf": _erf, "sigmoid": _sigmoid,
    "log2": lambda x: times(_log(x), inverse(_log(Fraction(2)))),
    "tanh": lambda x: plus(times(Fraction(2), _sigmoid(times(Fraction(2), x))), Fraction(-1)),
    "softplus": _softplus, "log_sigmoid": lambda x: negative(_softplus(negative(x))),
    "inv_softplus": lambda x: _log(plus(_exp(x), Fraction(-1))), "silu": lambda x: times(x, _sigmoid(x)),
    "gelu": _gelu, "relu": lambda x: max(real(x), Fraction(0)), "expm1": lambda x: plus(_exp(x), Fraction(-1)),
    "elu": lambda x: x if real(x) > 0 else plus(_exp(x), Fraction(-1)),
    "log1p": lambda x: _log(plus(Fraction(1), x)), "logaddexp": lambda a, b: _log(plus(_exp(a), _exp(b))),
    "clamp": lambda x, low, high: min(max(real(x), real(low)), real(high)),
    "sin": lambda x: _sine_cosine(decimal(real(x)))[0], "cos": lambda x: _sine_cosine(decimal(real(x)))[1],
    "sign": lambda x: Fraction((real(x) > 0) - (real(x) < 0)), "step": lambda x: Fraction(int(real(x) > 0)),
    "floor": _floor, "ceil": lambda x: -_floor(negative(x)), "round": _round,
    "xor": _bits(lambda a, b: a ^ b), "bit_and": _bits(lambda a, b: a & b),
    "bit_length": lambda a: Fraction(int(real(a)).bit_length()),
    "popcount": lambda a: Fraction(int(real(a)).bit_count()),
    "re": lambda x: _as_complex(x).re, "im": lambda x: _as_complex(x).im,
    "conj": lambda x: Complex(x.re, -x.im) if isinstance(x, Complex) else x,
}


def agree(a: Number, b: Number) -> bool:
    """Equal; to 40 digits, relative to the larger, where a function left the rationals."""
    x, y = _as_complex(a), _as_complex(b)
    return _agree(x.re, y.re) and _agree(x.im, y.im)


def _agree(a: Real, b: Real) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    x, y = _pair(a, b)
    if not (x.is_finite() and y.is_finite()):
        return x == y
    return abs(x - y) <= Decimal(10) ** -40 * max(Decimal(1), abs(x), abs(y))


def show_number(value: Number) -> str:
    """For evidence: a rational as it is, others to 6 digits."""
    if isinstance(value, Complex):
        return f"{show_number(value.re)} + {show_number(value.im)}i"
    if isinstance(value, Fraction):
        return str(value)
    if value.is_infinite():
        return "-inf" if value < 0 else "inf"
    return f"{float(value):.6g}"


