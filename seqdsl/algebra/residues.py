"""Residues of numbers over a tower of prime fields, in which a power of a generator is an exact exponential.

The primes are chained, p[i] = k p[i+1] + 1, so that the field of p[i] has elements of order p[i+1]; every p is 3 modulo 4,
so that -1 has no root and x + i y is a field too. A value is its residues over the first so many of the primes, and the
result of an operation has as many as the shorter of its operands. Source: DERIVATIONS 6.3.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache, lru_cache, reduce

from seqdsl.algebra.numbers import Undefined

LEVELS = 8
_SMALLEST = 2**61
Residue = tuple[int, int]  # x + i y
Value = tuple[Residue, ...]  # by level; `exponential` shortens it


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


def rational(re: Fraction, im: Fraction = Fraction(0)) -> Value:
    """The residues of a (Gaussian) rational, over all primes."""
    return _residues(re.numerator, re.denominator, im.numerator, im.denominator)


@lru_cache(10_000)  # by whole numbers, for a fraction is slow to hash
def _residues(a: int, b: int, c: int, d: int) -> Value:
    return tuple([(a * pow(b, -1, p) % p, c * pow(d, -1, p) % p if c else 0) for p in primes()])


def small(x: Value) -> int | None:
    """The whole number between -200 and 200 that these are the residues of."""
    re, p = x[0][0], primes()[0]
    n = re if re < p // 2 else re - p
    return n if abs(n) < 200 and x == rational(Fraction(n))[: len(x)] else None


def plus(a: Value, b: Value) -> Value:
    """a + b"""
    return tuple([((x + u) % p, (y + v) % p) for (x, y), (u, v), p in zip(a, b, primes(), strict=False)])


def minus(a: Value, b: Value) -> Value:
    """a - b"""
    return plus(a, negative(b))


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
    return tuple([(-x % p, -y % p) for (x, y), p in zip(a, primes(), strict=False)])


@lru_cache(10_000)
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


@lru_cache(10_000)
def root(x: Value) -> Value | None:
    """Of a square the square root that is itself a square; None for anything else."""
    roots = []
    for (re, im), p in zip(x, primes(), strict=False):
        found = pow(re, (p + 1) // 4, p)
        if im or found * found % p != re:
            return None
        roots.append((found, 0))
    return tuple(roots)


def total(values: list[Value]) -> Value:
    """The sum."""
    if not values:
        return rational(Fraction(0))
    levels = zip(zip(*values, strict=False), primes(), strict=False)
    return tuple([(sum([x for x, _ in level]) % p, sum([y for _, y in level]) % p) for level, p in levels])


def product(values: list[Value]) -> Value:
    """The product."""
    return reduce(times, values, rational(Fraction(1)))


@lru_cache(10_000)
def exponential(x: Value) -> Value:
    """G ^ a * H ^ b of a + i b, one level fewer; G and H are generators, and all of it is real."""
    result = []
    for level, (re, im) in enumerate(x[1:]):
        p = primes()[level]
        real_part = pow(_generator(level, 3), re, p)
        result.append((real_part * pow(_generator(level, 5), im, p) % p if im else real_part, 0))
    return tuple(result)
