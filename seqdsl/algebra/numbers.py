"""Numbers that are never rounded to floats: rationals, 50-digit decimals where a function leaves them, pairs of them.

The functions are those of the operator table, named as its rows; what a function has no value for raises `NotExact`.
The decimal context is the caller's (`exact.evaluate` works in that of `digits`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, getcontext, localcontext
from fractions import Fraction
from functools import cache, lru_cache
from typing import Union

Real = Union[Fraction, Decimal]
DIGITS = 50
_LAST = Decimal(10) ** -(DIGITS + 5)  # a term of a series that is smaller than this part of the sum changes no digit


@contextmanager
def digits() -> Iterator[None]:
    """The decimal context of exact evaluations, for as long as it is entered."""
    with localcontext() as context:
        context.prec = DIGITS
        context.Emax, context.Emin = 10**9, -(10**9)
        yield


class NotExact(Exception):
    """An operator that has `NoValue` here, or `TooMuch` work, or a value that is `Undefined`."""


class NoValue(NotExact):
    """An operator that has no exact evaluation."""


class TooMuch(NotExact):
    """More work than an exact evaluation is for."""


class Undefined(NotExact):
    """A value outside a function's domain: division by 0, the logarithm of a negative number."""


@dataclass(frozen=True)
class Complex:
    """re + i im"""

    re: Real
    im: Real


Number = Union[Fraction, Decimal, Complex]


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
    if type(a) is type(b) is not Complex:
        return a + b  # type: ignore[operator]
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
    if type(a) is type(b) is not Complex:
        return a * b  # type: ignore[operator]
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
        raise Undefined("division by zero")
    return 1 / a if isinstance(a, Fraction) else Decimal(1) / a


def negative(a: Number) -> Number:
    """-a"""
    return Complex(-a.re, -a.im) if isinstance(a, Complex) else -a


def folded(op: Callable[[Number, Number], Number], values: Iterable[Number], start: Number) -> Number:
    """The values joined from the left."""
    result = start
    for v in values:
        result = op(result, v)
    return result


def _as_complex(a: Number) -> Complex:
    return a if isinstance(a, Complex) else Complex(a, Fraction(0))


def exp(x: Number) -> Number:
    if isinstance(x, Complex):
        scale = real(exp(x.re))
        sine, cosine = _sine_cosine(decimal(x.im))
        return Complex(_times(scale, cosine), _times(scale, sine))
    return Fraction(1) if x == 0 else _exp(x, getcontext().prec)


@lru_cache(10_000)  # one exponential to 50 digits takes as long as hundreds of products, and monoids are tried on few numbers
def _exp(x: Real, digits: int) -> Decimal:
    return decimal(x).exp()


def log(x: Number) -> Number:
    value = real(x)
    if value == 1:
        return Fraction(0)
    if value < 0:
        raise Undefined("the logarithm of a negative number")
    return _log(value, getcontext().prec)


@lru_cache(10_000)
def _log(x: Real, digits: int) -> Decimal:
    return decimal(x).ln()


def _sqrt(x: Number) -> Number:
    value = real(x)
    if value < 0:
        raise Undefined("the root of a negative number")
    return Fraction(int(value)) if value in (0, 1) else decimal(value).sqrt()


def _power(a: Number, b: Number) -> Number:
    exponent = real(b)
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and abs(exponent) < 200:
        base = a if exponent >= 0 else inverse(a)
        return folded(times, [base] * abs(int(exponent)), Fraction(1))
    return exp(times(exponent, log(a)))


def pi() -> Decimal:
    """To the digits of the context."""
    return _pi(getcontext().prec)


@cache
def _pi(digits: int) -> Decimal:
    """Machin's formula."""
    def arctan(n: int) -> Decimal:
        x = Decimal(1) / n
        total, power, k = x, x, 1
        while abs(power) > Decimal(10) ** -(digits + 5):
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
    while abs(term) > _LAST:
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
    """2 / sqrt(pi) exp(-x^2) sum[n] 2^n x^(2n+1) / (1 3 5 .. (2n+1)): all terms have one sign, so no digits cancel."""
    return _erf_of(real(x), getcontext().prec)


@lru_cache(10_000)
def _erf_of(x: Real, digits: int) -> Decimal:
    value = decimal(x)
    if abs(value) > 12:  # 1 - erf(12) < 1e-64
        return Decimal(1).copy_sign(value)
    term, total, n = value, value, 0
    while abs(term) > _LAST * abs(total):
        n += 1
        term = term * 2 * value * value / (2 * n + 1)
        total += term
    return 2 * total * (-value * value).exp() / pi().sqrt()


def _sigmoid(x: Number) -> Number:
    return inverse(plus(Fraction(1), exp(negative(x))))


def _softplus(x: Number) -> Number:
    return log(plus(Fraction(1), exp(x)))


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
    "exp": exp, "log": log, "sqrt": _sqrt, "abs": _absolute, "erf": _erf, "sigmoid": _sigmoid,
    "log2": lambda x: times(log(x), inverse(log(Fraction(2)))),
    "tanh": lambda x: plus(times(Fraction(2), _sigmoid(times(Fraction(2), x))), Fraction(-1)),
    "softplus": _softplus, "log_sigmoid": lambda x: negative(_softplus(negative(x))),
    "inv_softplus": lambda x: log(plus(exp(x), Fraction(-1))), "silu": lambda x: times(x, _sigmoid(x)),
    "gelu": _gelu, "relu": lambda x: max(real(x), Fraction(0)), "expm1": lambda x: plus(exp(x), Fraction(-1)),
    "elu": lambda x: x if real(x) > 0 else plus(exp(x), Fraction(-1)),
    "log1p": lambda x: log(plus(Fraction(1), x)), "logaddexp": lambda a, b: log(plus(exp(a), exp(b))),
    "clamp": lambda x, low, high: min(max(real(x), real(low)), real(high)),
    "sin": lambda x: _sine_cosine(decimal(real(x)))[0], "cos": lambda x: _sine_cosine(decimal(real(x)))[1],
    "sign": lambda x: Fraction((real(x) > 0) - (real(x) < 0)), "step": lambda x: Fraction(int(real(x) >= 0)),
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
        sign, size = ("-", -value.im) if value.im < 0 else ("+", value.im)
        return f"{show_number(value.re)} {sign} {show_number(size)}i"
    if isinstance(value, Fraction):
        return str(value)
    if value.is_infinite():
        return "-inf" if value < 0 else "inf"
    return f"{float(value):.6g}"
