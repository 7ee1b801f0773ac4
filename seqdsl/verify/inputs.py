"""Inputs for a system: lengths of its free axes, and values that respect what its claims assume.

A claim's `when` clause (`g <= 0`, `0 <= f <= 1`, `A <= 0 and dt >= 0`) states the domain the author had in mind, so the
same bounds shape the inputs of every test of the mixer. Within them values are made to break things: decays of 0,
-1e-6, -20 and -200, equal entries, large entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from seqdsl.algebra.interval import is_everywhere
from seqdsl.algebra.telling import telling_numbers
from seqdsl.ir import build
from seqdsl.ir.initial import initial_values, state_names
from seqdsl.ir.node import Node, read_names, walk
from seqdsl.ir.ops import OPS
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.sizes import SizeError, Sizes, bind
from seqdsl.ir.system import Claim, System, Tensor

Array = np.ndarray[Any, Any]
FARTHEST = 130  # larger whole numbers decide no length
_OF_BITS = ("xor", "bit_and", "bit_length", "popcount")
HARSH = (0.0, -1e-6, -1e-3, -0.1, -1.0, -20.0, -200.0)


@dataclass(frozen=True)
class Bounds:
    """The interval an input's entries lie in; None is unbounded."""

    low: float | None = None
    high: float | None = None


def bounds_of(system: System, claim: Claim | None = None) -> dict[str, Bounds]:
    """Intervals of inputs, from the `when` clauses of the claims. What `a == 0` says is no domain but a special case, and
    holds for the claim that says it. A claim of stability says itself where it holds."""
    found: dict[str, Bounds] = {}
    others = () if _grows(claim) else (c for c in system.claims if c is not claim)
    for each in (*others, claim) if claim is not None else others:
        for fact in build.conjuncts(each.condition) if each.condition is not None else ():
            name, limit = _bound(system, fact)
            if fact.op != "eq":
                found[name] = _tighter(found.get(name, Bounds()), limit)
            elif each is claim:
                found[name] = limit
    return {n: b for n, b in found.items() if n in system.tensors and system.tensors[n].kind == "input"}


def unshaped(system: System, claim: Claim) -> list[Node]:
    """The conjuncts of the claim's condition that are about values and are no interval of an input."""
    facts = build.conjuncts(claim.condition) if claim.condition is not None else ()
    known = {n for n, t in system.tensors.items() if t.kind == "input" and t.dtype in ("real", "complex")}
    return [f for f in facts if any(n.op == "read" for n in walk(f)) and _bound(system, f)[0] not in known]


def _bound(system: System, fact: Node) -> tuple[str, Bounds]:
    """The tensor that a conjunct compares with a number, everywhere, and its interval; no name where it does not."""
    if fact.op in ("lt", "le", "eq"):
        a, b = (x.args[0] if x.op == "re" else x for x in fact.args)  # `re(A) <= 0` bounds the real part
        inside = a.op == "abs" and a.args[0].dtype == "real" and fact.op != "eq" and is_everywhere(system, a.args[0])
        if inside and (value := _number(b)) is not None:
            return str(a.args[0].attr), Bounds(-value, value)
        if is_everywhere(system, a) and (value := _number(b)) is not None:
            return str(a.attr), Bounds(value if fact.op == "eq" else None, value)
        if is_everywhere(system, b) and (value := _number(a)) is not None:
            return str(b.attr), Bounds(value, value if fact.op == "eq" else None)
    return "", Bounds()


def _grows(claim: Claim | None) -> bool:
    """Is growth what the claim denies? Then nothing keeps it out of the test but the claim's own condition."""
    return claim is not None and claim.kind == "stable"


def _number(node: Node) -> float | None:
    value = build.value_of(node)
    return None if value is None else float(value)


def _tighter(a: Bounds, b: Bounds) -> Bounds:
    low = max((x for x in (a.low, b.low) if x is not None), default=None)
    high = min((x for x in (a.high, b.high) if x is not None), default=None)
    return Bounds(low, high)


def draw_sizes(
    system: System,
    rng: np.random.Generator,
    *,
    stream: int,
    fixed: Mapping[str, int] | None = None,
    fits: Callable[[Sizes], bool] = lambda sizes: True,
    most: int = 3_000_000,
    tries: int = 60,
) -> Sizes:
    """Small lengths for the free axes that satisfy every check, and `fits`, with fewer than `most` entries in all; options
    keep their defaults where those fit.

    Errors: `SizeError` of the last try, if none fits.
    """
    fixed = dict(fixed or {})
    powers = _powers_of_two(system)
    last: SizeError | None = None
    for attempt in range(tries):
        lengths = {n: int(rng.integers(1, 5)) for n, i in system.indices.items() if i.axis == n and i.size is None}
        if attempt % 2:
            lengths = {n: int(rng.choice((4, 8, 16, 32))) for n in lengths}
        if system.stream in lengths:
            lengths[str(system.stream)] = stream
        options = {n: int(rng.integers(1, 4)) for n, d in system.options.items() if d is None}
        if attempt % 4 > 1:  # defaults may be larger than what a test can afford
            options.update({n: int(rng.integers(1, 5)) for n in system.options})
        lengths.update({k: v for k, v in fixed.items() if k in lengths})
        options.update({k: v for k, v in fixed.items() if k in system.options})
        try:
            sizes = bind(system, options, lengths)
        except SizeError as error:
            last = error
            continue
        if any(sizes[name] & (sizes[name] - 1) for name in powers):
            last = SizeError("bad-size", f"`hadamard` along `{sorted(powers)[0]}` needs a power of two")
            continue
        if not fits(sizes):
            last = SizeError("bad-size", "the condition was not met by any sizes tried")
            continue
        if entries(system, sizes) < most:
            return sizes
    raise last if last is not None else SizeError("bad-size", f"no small sizes fit `{system.name}`")


@once_for_each
def _powers_of_two(system: System) -> set[str]:
    """The indices whose lengths have to be."""
    terms = [t.rhs for t in system.tensors.values() if t.rhs is not None]
    return {str(n.attr[0][0]) for rhs in terms for n in walk(rhs) if n.op == "hadamard"}


def small_options(system: System, rng: np.random.Generator) -> dict[str, int]:
    """Options of the order of the lengths that are drawn: a window's edge shows only where the window is the shorter."""
    return {name: int(rng.integers(1, 5)) for name in system.options}


def entries(system: System, sizes: Sizes) -> int:
    """How many numbers the interpreter writes: every tensor, and the body of every reduction."""
    return sum(math.prod([max(sizes[i], 1) for i in shape]) for shape in _shapes(system))  # beside an empty axis too


@once_for_each
def _shapes(system: System) -> list[Iterable[str]]:
    terms = [t.rhs for t in system.derived() if t.rhs is not None]
    bodies = {n.args[0].free for rhs in terms for n in walk(rhs) if OPS[n.op].binding}
    return [*(t.indices for t in system.derived()), *bodies]


def draw_inputs(
    system: System,
    sizes: Sizes,
    rng: np.random.Generator,
    *,
    claim: Claim | None = None,
    harsh: bool = False,
    spread: tuple[float, ...] = (1.0,),
) -> dict[str, Array]:
    """One array for each input, for a test of `claim` where there is one; entries are as large as one of `spread`.
    Integers stay within the axes they index."""
    bounds = bounds_of(system, claim)
    logs = set() if _grows(claim) else log_decays(system)
    found: dict[str, Array] = {}
    for tensor in system.inputs():
        shape = tuple(sizes[i] for i in tensor.indices)
        if tensor.dtype == "int":
            found[tensor.name] = rng.integers(0, max(1, _range_of(system, sizes, tensor)), shape)
        elif tensor.dtype == "bool":
            found[tensor.name] = rng.random(shape) < 0.5
        elif tensor.dtype == "complex":
            z = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
            z = _size(spread, shape, rng) * z if _grows(claim) else 0.6 * z / np.maximum(1, np.abs(z))
            if tensor.name in bounds:
                z = _real(shape, bounds[tensor.name], rng, harsh=False) + 1j * z.imag
            found[tensor.name] = z
        else:
            limit = bounds.get(tensor.name, Bounds(high=0.0) if tensor.name in logs else Bounds())
            found[tensor.name] = _real(shape, limit, rng, harsh=harsh and tensor.name in logs, spread=spread)
    return found


def _size(spread: tuple[float, ...], shape: tuple[int, ...], rng: np.random.Generator) -> Array | float:
    return spread[0] if len(spread) == 1 else rng.choice(spread, shape)


def _real(
    shape: tuple[int, ...],
    limit: Bounds,
    rng: np.random.Generator,
    *,
    harsh: bool,
    spread: tuple[float, ...] = (1.0,),
) -> Array:
    if harsh:
        return rng.choice(HARSH, shape)
    x = _size(spread, shape, rng) * rng.standard_normal(shape)
    if limit.low is not None and limit.high is not None:
        return limit.low + (limit.high - limit.low) / (1 + np.exp(-x))
    if limit.high is not None:
        return limit.high - np.abs(x)
    return x if limit.low is None else limit.low + np.abs(x)


@once_for_each
def telling(system: System) -> list[Fraction]:
    """Values that show what others do not, by the equations of a system."""
    return telling_numbers(t.rhs for t in system.derived() if t.rhs is not None)


@once_for_each
def turns(system: System) -> bool:
    """Is there a root or a logarithm of complex numbers, which has one value of several: that of an angle up to pi?"""
    nodes = (n for t in system.derived() if t.rhs is not None for n in walk(t.rhs))
    return any(n.op in ("log", "sqrt", "pow") and n.args[0].dtype == "complex" for n in nodes)


@once_for_each
def free_integers(system: System) -> set[str]:
    """The int inputs that may be any whole number: no place of a tensor, no position, and no operand of a bit function.
    What a place is computed from is none: `x[t - n]`."""
    held, used = set[str](), set[str]()
    for node in (n for t in system.derived() if t.rhs is not None for n in walk(t.rhs)):
        used |= {str(node.attr)} if node.op == "read" else set()
        if node.op in _OF_BITS or node.op in ("eq", "ne") and any(a.op == "index" for a in node.args):
            held |= {name for a in node.args for name in read_names(a)}
        if node.op == "read":
            held |= {str(a.attr) for a in node.args if a.op == "read"}
    return {t.name for t in system.inputs() if t.dtype == "int"} & used - held


def trained(system: System, sizes: Sizes, condition: Node | None) -> dict[str, Array]:
    """Parameters by their saved names, moved from where they begin as training moves them: a claim is not about a bias of 0.
    None where the condition is about parameters."""
    params = {t.name: t for t in system.params() if t.kind == "param"}
    if condition is not None and read_names(condition) & params.keys():
        return {}
    values, rng = initial_values(system, sizes, {}), np.random.default_rng(1)
    moved = {n: values[n] + 0.25 * rng.standard_normal(values[n].shape) for n in params}
    return {saved: moved[n][place] for n, t in params.items() for place, saved in state_names(t, sizes)}


def draw_integers(
    system: System, claim: Claim, inputs: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """For the int inputs that may be any, small ones of either sign, within the claim's bounds."""
    found, bounds = dict[str, Array](), bounds_of(system, claim)
    for name in sorted(free_integers(system)):
        limit = bounds.get(name, Bounds())
        low = -4 if limit.low is None else math.ceil(limit.low)
        high = max(4, low) if limit.high is None else math.floor(limit.high)
        found[name] = np.asarray(np.clip(rng.integers(-4, 5, inputs[name].shape), min(low, high), high))
    return found


def own_axis(system: System, claim: Claim) -> str | None:
    """The axis that a claim is about, if inputs give its length and it is not the stream."""
    if claim.kind not in ("causal", "shift", "permutation"):
        return None
    axis = system.axis(claim.args[0])
    return axis if axis != system.stream and system.indices[axis].size is None else None


def reach(system: System) -> int:
    """A length beyond the largest whole number up to `FARTHEST` that positions are compared with, or reads are away: two
    positions from it on, or from the first one that is larger."""
    found = 0
    for tensor in system.derived():
        for node in walk(tensor.rhs) if tensor.rhs is not None else ():
            if node.dtype == "int" or node.op in ("lt", "le", "eq", "ne") and node.args[0].dtype == "int":
                values = (build.value_of(a) for a in node.args)
                after = node.op in ("lt", "le")
                found = max([found, *(abs(v) + after for v in values if isinstance(v, int) and abs(v) <= FARTHEST)])
    return found + 2


@once_for_each
def log_decays(system: System) -> set[str]:
    """Inputs that stand alone in the exponent of a recurrence's coefficient, where growth would drown every test."""
    names: set[str] = set()
    for tensor in system.derived():
        if tensor.rhs is None or tensor.name not in read_names(tensor.rhs):
            continue
        for node in walk(tensor.rhs):
            if (
                node.op == "exp"
                and node.args[0].op == "read"
                and system.tensors[str(node.args[0].attr)].kind == "input"
            ):
                names.add(str(node.args[0].attr))
    return names


def _range_of(system: System, sizes: Sizes, tensor: Tensor) -> int:
    """One more than the largest value: the shortest axis that the input subscripts, or is compared with."""
    lengths = []
    for other in system.derived():
        for node in walk(other.rhs) if other.rhs is not None else ():
            if node.op == "read":
                own = system.tensors[str(node.attr)].indices
                lengths += [
                    sizes[i] for i, a in zip(own, node.args, strict=True) if a.op == "read" and a.attr == tensor.name
                ]
            elif node.op in ("eq", "ne"):
                a, b = node.args
                for x, y in ((a, b), (b, a)):
                    if x.op == "read" and x.attr == tensor.name and y.op == "index":
                        lengths.append(sizes[str(y.attr)])
    return min(lengths, default=4)
