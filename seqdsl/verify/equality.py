"""Equality of two tensors by random exact evaluation (DERIVATIONS 6.3): residues in a tower of prime fields, and beside
them the numbers themselves, rational or to 50 digits. Floats come after this, and only where it cannot tell.

Equal residues and numbers, three draws at each of several sizes, are `Tested`. Two different numbers are `Refuted`, with
the smallest inputs found. Different residues beside numbers that agree say nothing where a function without laws was
met; else they are two formulas that differ by less than the digits show, which is `Unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import DecimalException
from fractions import Fraction
from itertools import islice, product
from math import ceil, floor
from random import Random
from typing import Any

import numpy as np

from seqdsl.algebra.exact import Equations, Point, evaluate
from seqdsl.algebra.numbers import (
    Complex,
    NotExact,
    NoValue,
    Number,
    TooMuch,
    Undefined,
    agree,
    decimal,
    digits,
    real,
    show_number,
)
from seqdsl.algebra.residues import LEVELS
from seqdsl.algebra.tower import TooDeep, Tower
from seqdsl.algebra.verdict import Refuted, Tested, Unknown, Verdict
from seqdsl.ir import build
from seqdsl.ir.initial import RANDOM
from seqdsl.ir.node import Node, walk
from seqdsl.ir.sizes import SizeError, Sizes
from seqdsl.ir.system import Claim, System, Tensor
from seqdsl.verify.inputs import (
    Bounds,
    bounds_of,
    draw_inputs,
    draw_sizes,
    free_integers,
    reach,
    small_options,
    telling,
    turns,
)

Inputs = dict[str, dict[Point, Number]]
LENGTHS = (1, 2, 3, 4, 7)
_FAR = 3  # equal at shorter lengths only is left to floats: the second step of a recurrence is the first that tells
_ENOUGH = 100_000  # nodes evaluated; what has shown itself equal that far is drawn once more, at the last length
_DRAWS = 3
_TRIES = 6
_DENOMINATOR = 1009
_NEAR = Fraction(1, 10**9)
_SHALLOW = 2  # levels of residues to begin with: in most formulas no exponential is nested in another
_POINTS = 60  # entries of the two sides that one draw compares
_SHRINKS = 60
_FAILURES = (NotExact, DecimalException, RecursionError, KeyError, OverflowError)
DIFFERENT = Unknown("the two sides agree to 40 digits, and their residues differ: they are different formulas")


@dataclass(frozen=True)
class Gap:
    """A point where the two sides are different numbers."""

    at: Mapping[str, int]
    left: Number
    right: Number


@dataclass
class Outcome:
    """What one draw showed: how many points were compared, where they differ, and how far residues went with it."""

    points: int = 0
    spent: int = 0  # nodes evaluated
    gap: Gap | None = None
    residues: bool = True  # every point had residues
    equal: bool = True  # and they were equal
    opaque: bool = False


def test_equality(system: System, claim: Claim, *, seed: int = 0) -> Verdict:
    """Tested or refuted by exact evaluation; unknown where an operator, or the size, has none."""
    rng = np.random.default_rng(seed)
    done: list[Outcome] = []
    why = "its condition was never met"
    lengths = _lengths(system)
    wanted = longest = tired = wide = 0
    for length, attempt in product(lengths, range(_TRIES)):
        wanted += 0 if attempt else _DRAWS if length < 4 else 1
        tired = tired if attempt else 0
        enough = longest >= _FAR and sum(d.spent for d in done) > _ENOUGH
        if len(done) >= wanted or enough and length < lengths[-1]:
            continue
        own = small_options(system, rng) if (length >= 4) != (attempt % 2 == 1) else {}
        fixed = {**own, **fixed_sizes(claim)}
        try:
            sizes = draw_sizes(system, rng, stream=length, fixed=fixed, tries=1 + 2 * attempt)
            if _entries(system, claim, sizes) > max(_POINTS, 2 * length):
                continue
            if length >= 4 and attempt < _TRIES // 2 and _is_thin(system, sizes):
                continue  # one draw a length: entries that depend on each other are to be there
            small = attempt < 2 and length < 4
            inputs = draw(system, claim, sizes, Random(f"{seed}:{length}:{attempt}"), small=small)
            outcome = Outcome() if inputs is None else compare(system, claim, sizes, inputs)
        except SizeError as error:
            why = error.message
            continue
        except (TooMuch, NoValue) as error:
            why, tired = str(error), tired + 1
            if tired == _TRIES and (isinstance(error, TooMuch) or not done):  # what is longer takes more, and has no less
                break
            continue
        except _FAILURES as error:
            why = str(error) or type(error).__name__
            continue
        if inputs is not None and outcome.gap is not None:
            return _refuted(system, claim, sizes, inputs, outcome.gap)
        if outcome.points:
            done.append(outcome)
            longest, wide = length, wide + (not small)
    return _verdict(done, why, longest) if wide else Unknown(f"no exact evaluation but at small whole numbers: {why}")


def _is_thin(system: System, sizes: Sizes) -> bool:
    """Are all axes but the stream of length 1?"""
    others = [n for axis, n in sizes.lengths.items() if axis != system.stream]
    return bool(others) and max(others) == 1


def _lengths(system: System) -> tuple[int, ...]:
    """Small ones, and one beyond the largest constant: a window or a lag shows only past its end."""
    return tuple(sorted({*LENGTHS, reach(system)}))


def _verdict(done: list[Outcome], why: str, longest: int) -> Verdict:
    count = sum(d.points for d in done)
    if not count:
        return Unknown(f"no exact evaluation: {why}")
    scope = f"{count} entries, rationals, lengths to {longest}"
    if longest < _FAR:
        return Unknown(f"the budget of exact evaluation ends at length {longest}")
    if all(d.residues and d.equal for d in done):
        how = "random exact evaluation, residues in a tower of prime fields where exp is a homomorphism"
        return Tested(len(done), 0.0, f"{how}; {scope}")
    if any(d.residues and not d.equal and not d.opaque for d in done):
        return DIFFERENT
    return Tested(len(done), 1e-40, f"evaluation to 50 digits, which agree to 40; {scope}")


def compare(system: System, claim: Claim, sizes: Sizes, inputs: Inputs) -> Outcome:
    """Both sides at every point. Points at which a side is undefined (a division by 0) are no evidence either way."""
    with digits():
        world = Equations(system, draw=_given(inputs), sizes=sizes)
        tower = Tower(world, _SHALLOW)
        outcome = _compare(system, claim, sizes, tower)
        return replace(outcome, spent=max(world.spent, tower.spent), opaque=tower.opaque)


def _compare(system: System, claim: Claim, sizes: Sizes, tower: Tower) -> Outcome:
    """Numbers are evaluated only where residues do not settle it."""
    outcome = Outcome()
    sides = [system.tensors[n] for n in claim.args]
    for point in product(*(range(sizes[i]) for i in sides[0].indices)):
        reads = [build.read(t.name, [build.const(p) for p in point], t.dtype) for t in sides]
        telling = outcome.residues and (outcome.equal or not tower.opaque)  # else more residues say nothing more
        same = _same_residues(tower, reads) if telling else None
        if not same or tower.loose:
            try:
                left, right = (evaluate(r, {}, tower.world) for r in reads)
            except Undefined:
                continue
            if not agree(left, right):
                outcome.gap = Gap(dict(zip(sides[0].indices, point, strict=True)), left, right)
                return outcome
        outcome.points += 1
        if telling:
            outcome.residues, outcome.equal = same is not None, outcome.equal and same is not False
    return outcome


def _same_residues(tower: Tower, reads: list[Node]) -> bool | None:
    """Are they equal, at all the levels they have? None where there are none."""
    try:
        a, b = (tower.value(r, {}) for r in reads)
    except TooDeep:
        if tower.levels == LEVELS:
            return None
        tower.deepen()
        return _same_residues(tower, reads)
    except (TooMuch, NoValue):
        raise
    except _FAILURES:
        return None
    return all(x == y for x, y in zip(a, b, strict=False))


def _given(inputs: Inputs) -> Any:
    return lambda name, point: inputs[name][point] if name in inputs else None


def _entries(system: System, claim: Claim, sizes: Sizes) -> int:
    return int(np.prod([sizes[i] for i in system.tensors[claim.args[0]].indices], dtype=np.int64))


def fixed_sizes(claim: Claim) -> dict[str, int]:
    """Sizes that the condition pins, `|j| == 1`."""
    found = {}
    for fact in build.conjuncts(claim.condition) if claim.condition is not None else ():
        value = build.value_of(fact.args[1]) if fact.op == "eq" and fact.args[0].op in ("size", "option") else None
        if isinstance(value, int):
            found[str(fact.args[0].attr)] = value
    return found


# -- inputs --------------------------------------------------------------------------------------------------------


def draw(system: System, claim: Claim, sizes: Sizes, rng: Random, *, small: bool) -> Inputs | None:
    """Rationals for inputs and parameters within the bounds of the claim's condition, checked exactly; None if not."""
    bounds = bounds_of(replace(system, claims=()), claim)
    special = [] if small else telling(system)
    free, turn = free_integers(system), 1 if small or not turns(system) else 4
    whole = draw_inputs(system, sizes, np.random.default_rng(rng.randrange(2**32)))
    inputs: Inputs = {}
    for tensor in (*system.inputs(), *system.params()):
        points = list(product(*(range(sizes[i]) for i in tensor.indices)))
        limit = bounds.get(tensor.name, Bounds())
        if tensor.name in free:
            inputs[tensor.name] = {p: _whole(special, limit, rng) for p in points}
        elif tensor.dtype in ("int", "bool") and tensor.kind == "input":
            inputs[tensor.name] = {p: Fraction(int(whole[tensor.name][p])) for p in points}
        elif tensor.kind == "const" and tensor.rhs is not None and not _is_random(tensor):
            world = Equations(system, draw=_given(inputs), sizes=sizes)
            at = [dict(zip(tensor.indices, p, strict=True)) for p in points]
            inputs[tensor.name] = {p: evaluate(tensor.rhs, a, world) for p, a in zip(points, at, strict=True)}
        else:
            inputs[tensor.name] = {p: _entry(tensor, limit, rng, small=small, turn=turn) for p in points}
            if special and tensor.dtype == "real":
                inputs[tensor.name] |= {p: _special(special, limit, rng) for p in points if rng.random() < 0.25}
    return inputs if _meets(system, claim.condition, sizes, inputs) else None


def _is_random(tensor: Tensor) -> bool:
    return tensor.rhs is None or any(n.op in RANDOM for n in walk(tensor.rhs))


def _entry(tensor: Tensor, limit: Bounds, rng: Random, *, small: bool, turn: int) -> Number:
    draw_real = _small if small else _rational
    if tensor.dtype == "complex":
        return Complex(draw_real(limit, rng), turn * draw_real(Bounds(), rng))
    return draw_real(limit, rng)


def _special(numbers: list[Fraction], limit: Bounds, rng: Random) -> Fraction:
    """One of the numbers that tell, if it is within the bounds."""
    low, high = _ends(limit)
    value = rng.choice(numbers)
    return value if low <= value <= high else _rational(limit, rng)


def _whole(numbers: list[Fraction], limit: Bounds, rng: Random) -> Fraction:
    """A small whole number within the bounds, of either sign, or one of those that tell, away from 0 to the next whole one."""
    low, high = ceil(_ends(limit)[0]), floor(_ends(limit)[1])
    value = min(high, max(low, 0)) + rng.randint(-4, 4)
    if numbers and rng.random() < 0.25:
        number = rng.choice(numbers)
        value = ceil(number) if number > 0 else floor(number)
    return Fraction(min(high, max(low, value)))


def _small(limit: Bounds, rng: Random) -> Fraction:
    """A small number within the bounds: whole where there is a whole one."""
    low, high = _ends(limit)
    fits = [v for v in map(Fraction, (-2, -1, 0, 1, 2)) if low <= v <= high]
    return rng.choice(fits) if fits else _rational(limit, rng)


def _rational(limit: Bounds, rng: Random) -> Fraction:
    """A number within the bounds, now and then beside one of them: there two sides part that are equal on the whole."""
    low, high = _ends(limit)
    ends = [e for e, given in ((low + _NEAR, limit.low), (high - _NEAR, limit.high)) if given is not None and low < e < high]
    if ends and rng.random() < 0.15:
        return rng.choice(ends)
    low, high = max(low, min(high, Fraction(2)) - 4), min(high, max(low, Fraction(-2)) + 4)
    return low + (high - low) * Fraction(rng.randint(1, _DENOMINATOR - 1), _DENOMINATOR)


def _ends(limit: Bounds) -> tuple[Fraction, Fraction]:
    low = Fraction(-(10**9)) if limit.low is None else Fraction(limit.low)
    return low, Fraction(10**9) if limit.high is None else Fraction(limit.high)


def _meets(system: System, condition: Node | None, sizes: Sizes, inputs: Inputs) -> bool:
    """Does the condition hold at every point?"""
    if condition is None:
        return True
    world = Equations(system, draw=_given(inputs), sizes=sizes)
    names = sorted(condition.free)
    for point in product(*(range(sizes[n]) for n in names)):
        if evaluate(condition, dict(zip(names, point, strict=True)), world) == 0:
            return False
    return True


# -- refutation ----------------------------------------------------------------------------------------------------


def _refuted(system: System, claim: Claim, sizes: Sizes, inputs: Inputs, gap: Gap) -> Refuted:
    inputs, gap = _shrunk(system, claim, sizes, inputs, gap)
    left, right = apart(gap.left, gap.right)
    place = ", ".join(f"{n} = {v}" for n, v in gap.at.items())
    given = "; ".join(f"{n} = {_shown(v)}" for n, v in inputs.items() if v)
    lengths = ", ".join(f"|{n}| = {v}" for n, v in sizes.lengths.items() if "." not in n and "@" not in n)
    text = f"the two sides differ{f' at {place}' if place else ''}: {left} and {right}"
    return Refuted(f"{text}; with {given}; sizes {lengths}", (("left", left), ("right", right)))


def _shrunk(system: System, claim: Claim, sizes: Sizes, inputs: Inputs, gap: Gap) -> tuple[Inputs, Gap]:
    """Greedily: a tensor all 0, all 1, or one entry of it 0, wherever the two sides still differ."""
    pieces = [(n, tuple(v)) for n, v in inputs.items()]
    pieces += [(n, (p,)) for n, v in inputs.items() for p in v if len(v) > 1]
    for (name, points), value in islice(product(pieces, (Fraction(0), Fraction(1))), _SHRINKS):
        if all(inputs[name][p] in (0, value) for p in points):
            continue
        simpler = {**inputs, name: {**inputs[name], **dict.fromkeys(points, value)}}
        try:
            found = compare(system, claim, sizes, simpler).gap if _meets(system, claim.condition, sizes, simpler) else None
        except _FAILURES:
            continue
        if found is not None:
            inputs, gap = simpler, found
    return inputs, gap


def apart(a: Number, b: Number) -> tuple[str, str]:
    """Two different numbers written with as many digits as it takes to see it."""
    left, right = show_number(a), show_number(b)
    if left != right or isinstance(a, Complex) or isinstance(b, Complex):
        return left, right
    with digits():
        for count in (10, 15, 20, 30, 45):
            left, right = (f"{decimal(real(x)):.{count}g}" for x in (a, b))
            if left != right:
                break
    return left, right


def _shown(entries: Mapping[Point, Number]) -> str:
    values = list(entries.values())
    if len({repr(v) for v in values}) == 1:
        return show_number(values[0]) + (" everywhere" if len(values) > 1 else "")
    shown = ", ".join(show_number(v) for v in values[:8])
    return f"[{shown}{', ..' if len(values) > 8 else ''}]"
