"""Declared monoids: associativity, identity, commutativity, proved, tested or refuted (rule 34, DERIVATIONS 6).

A law is an equation between elements built with the user's own `combine`. In order: the smallest numbers that break
it, by exact evaluation (a refutation); equality of canonical forms (a proof for all sizes); cases, for max and min; sympy; else
random exact evaluation, which tests. Floats are never used: (1 + 1) - 1 and 1 + (1 - 1) differ under a saturating sum
only where it saturates, and random small floats miss that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from math import ceil, floor, prod
from random import Random
from typing import Any

from seqdsl.algebra.equal import same, where_defined
from seqdsl.algebra.exact import Point, World, evaluate
from seqdsl.algebra.interval import Bounds
from seqdsl.algebra.numbers import Complex, NotExact, Number, Real, agree, digits, real, show_number
from seqdsl.algebra.piecewise import equal_by_cases
from seqdsl.algebra.telling import telling_numbers
from seqdsl.algebra.verdict import Proved, Refuted, Tested, Unknown, Verdict
from seqdsl.ir import build
from seqdsl.ir.build import Fraction
from seqdsl.ir.node import Node, reads, rebuild_reads, walk
from seqdsl.ir.system import Monoid, System, Tensor

Element = dict[str, Node]  # field -> value over the field's own indices
SMALL = tuple(Fraction(n) for n in (0, 1, -1, 2, -2))
_TURNED = (Complex(Fraction(0), Fraction(1)), Complex(Fraction(1), Fraction(-1)))
_TRIALS = 40
_SEARCH = 4000
_SMALLEST = 500
_SPECIAL = 3  # numbers that tell, of each expression
_FIRST = 60  # assignments that are tried before anything is proved: most wrong laws fail at once
_SYMPY_OPS = frozenset("const read add sub mul div neg pow maximum minimum index size exp".split())


def monoid_verdicts(system: System, name: str) -> dict[str, Verdict]:
    """Each law by its name: associative, commutative, and identity where one is declared."""
    monoid = system.monoids[name]
    found: dict[str, Verdict] = {
        "associative": associativity(system, name),
        "commutative": _law(system, monoid, "commutativity", "xy", "x . y and y . x",
                            lambda x, y: (combine(monoid, x, y), combine(monoid, y, x))),
    }  # fmt: skip
    if (one := identity(system, name)) is not None:
        found["identity"] = one
    return found


def identity(system: System, name: str) -> Verdict | None:
    """Does the declared identity change nothing, on either side? None where none is declared."""
    monoid = system.monoids[name]
    if monoid.identity is None:
        return None
    one = dict(zip((n for n, _ in monoid.fields), monoid.identity, strict=True))
    left = _law(system, monoid, "left identity", "x", "e . x and x", lambda x: (combine(monoid, one, x), x))
    right = _law(system, monoid, "right identity", "x", "x . e and x", lambda x: (combine(monoid, x, one), x))
    return left if not left.holds else right


def associativity(system: System, name: str) -> Verdict:
    """Is (x . y) . z always x . (y . z)?"""
    monoid = system.monoids[name]

    def sides(x: Element, y: Element, z: Element) -> tuple[Element, Element]:
        return combine(monoid, combine(monoid, x, y), z), combine(monoid, x, combine(monoid, y, z))

    return _law(system, monoid, "associativity", "xyz", "(x . y) . z and x . (y . z)", sides)


def _free(monoid: Monoid, name: str) -> Element:
    """An arbitrary element: a tensor for each field."""
    return {
        f: build.read(_leaf(name, f), [build.index(i) for i in idx], t)
        for (f, idx), t in zip(monoid.fields, _types(monoid), strict=True)
    }


def _lifted(monoid: Monoid, name: str) -> Element:
    """An element that `lift` makes of arbitrary values: a tensor for each of its arguments."""
    given = {n for n, _ in monoid.lift_params}

    def renamed(node: Node) -> Node:
        return build.read(_leaf(name, str(node.attr)), list(node.args), node.dtype)

    return {f: rebuild_reads(node, given, renamed) for (f, _), node in zip(monoid.fields, monoid.lift, strict=True)}


def _not_negative(system: System, monoid: Monoid) -> frozenset[str]:
    """The arguments of `lift` that are never negative, in every fold: positions, counts, exponentials."""
    bounds = Bounds(system)
    folds = [n for t in system.derived() if t.rhs is not None for n in walk(t.rhs)
             if n.op == "fold" and n.attr[0] == monoid.name]  # fmt: skip
    found = {name for k, (name, _) in enumerate(monoid.lift_params)
             if folds and all((low := bounds.of(n.args[k])[0]) is not None and low >= 0 for n in folds)}  # fmt: skip
    return frozenset(found)


def _leaf(element: str, part: str) -> str:
    return f"~{element}.{part}"  # no name of a system begins like this


def _types(monoid: Monoid) -> tuple[str, ...]:
    return monoid.types or ("real",) * len(monoid.fields)


def combine(monoid: Monoid, a: Element, b: Element) -> Element:
    """The element a . b as expressions, the user's equations written out."""
    known: dict[str, tuple[tuple[str, ...], Node]] = {}
    for side, element in (("a", a), ("b", b)):
        for field, indices in monoid.fields:
            known[f"{side}.{field}"] = (indices, element[field])
    for equation in monoid.combine:
        known[equation.name] = (equation.indices, _open(equation, known))
    return {f: known[f][1] for f, _ in monoid.fields}


def lifted(monoid: Monoid, args: Sequence[Node]) -> Element:
    """The element that `lift` makes of arguments, which vary along the indices of its parameters and others."""
    known = {name: (indices, arg) for (name, indices), arg in zip(monoid.lift_params, args, strict=True)}
    return {f: _known(node, known) for (f, _), node in zip(monoid.fields, monoid.lift, strict=True)}


def project(monoid: Monoid, element: Element) -> Node:
    """The value of an element, over the indices of the monoid's output."""
    known = {field: (indices, element[field]) for field, indices in monoid.fields}
    for equation in monoid.project:
        known[equation.name] = (equation.indices, _open(equation, known))
    return known[monoid.output][1]


def _open(equation: Tensor, known: Mapping[str, tuple[tuple[str, ...], Node]]) -> Node:
    assert equation.rhs is not None
    return _known(equation.rhs, known)


def _known(node: Node, known: Mapping[str, tuple[tuple[str, ...], Node]]) -> Node:
    def change(read: Node) -> Node:
        indices, value = known[str(read.attr)]
        return build.substitute(value, dict(zip(indices, read.args, strict=True)))

    return rebuild_reads(node, known, change)


def _law(
    system: System, monoid: Monoid, law: str, names: str, what: str, sides: Callable[..., tuple[Element, Element]]
) -> Verdict:
    """Does a law hold of all elements? Where it does not, and `lift` makes only some of them, of those that can occur?"""
    verdict = _of_all(system, monoid, law, {n: _free(monoid, n) for n in names}, what, sides)
    positive = _not_negative(system, monoid) if isinstance(verdict, Refuted) else frozenset()
    whole = len({n.attr for n in monoid.lift if n.op == "read"}) == len(monoid.lift) and not positive
    if not isinstance(verdict, Refuted) or whole:
        return verdict
    one = {n: _lifted(monoid, n) for n in names}
    two = {n: combine(monoid, one[n], _lifted(monoid, f"{n}'")) for n in names}
    total = 0
    for elements in (one, two):
        refuted, tried = _search(system, monoid, elements, what, sides, positive=positive)
        if refuted is not None:
            return refuted
        total += tried
    return Tested(total, 0.0, "exact evaluation, of what `lift` makes and what is combined of it") if total else verdict


def _of_all(
    system: System,
    monoid: Monoid,
    law: str,
    elements: Mapping[str, Element],
    what: str,
    sides: Callable[..., tuple[Element, Element]],
) -> Verdict:
    refuted, _ = _search(system, monoid, elements, what, sides, most=_FIRST)
    if refuted is not None:
        return refuted
    left, right = sides(*elements.values())
    if all(same(system, left[f], right[f]) for f in left):
        where = where_defined(system, (*left.values(), *right.values()))
        return Proved(law, f"symbolic identity: equal canonical forms, for all sizes{where}")
    refuted, tried = _search(system, monoid, elements, what, sides)
    if refuted is not None:
        return refuted
    if _by_order_types(system, monoid, left, right, tuple(elements)):
        return Proved(law, "all cases: the operator only compares and selects, so order types are all there is")
    if all(equal_by_cases(left[f], right[f]) for f in left):
        return Proved(law, "all cases of its maxima and minima, between which it is linear")
    if all(_equal_in_sympy(left[f], right[f]) for f in left):
        return Proved(law, "symbolic identity (sympy), entry by entry")
    if tried == 0:
        return Unknown("its operators have no exact evaluation here")
    return Tested(tried, 0.0, "exact evaluation, small integers and random rationals; functions to 40 digits")


_SELECTING = frozenset("where lt le eq ne and or not maximum minimum read index".split())


def _by_order_types(
    system: System, monoid: Monoid, left: Element, right: Element, names: tuple[str, ...]
) -> bool:
    """An operator that only compares entries of one field with each other, and selects, is decided by the order types
    of its operands: as many different values as there are operands cover them all."""
    if any(idx for _, idx in monoid.fields):
        return False
    for side in (*left.values(), *right.values()):
        for node in walk(side):
            if node.op not in _SELECTING:
                return False
            if node.op in ("lt", "le", "eq", "ne", "maximum", "minimum"):
                if len({str(r.attr).split(".")[1] for r in reads(node)}) > 1 and node.op not in ("maximum", "minimum"):
                    return False
    slots = [(_leaf(n, f), ()) for n in names for f, _ in monoid.fields]
    ranks = {t: [Fraction(k) for k in range(2 if t == "bool" else len(names))] for t in ("bool", "int", "real")}
    if "complex" in _types(monoid) or len(names) ** len(slots) > _SEARCH:
        return False
    for chosen in product(*(ranks[t] for _ in names for t in _types(monoid))):
        assignment: dict[tuple[str, Point], Number] = dict(zip(slots, chosen, strict=True))
        world = World(system, draw=_values(assignment))
        if _difference(monoid, left, right, world) is not None:
            return False
    return True


def _values(
    assignment: Mapping[tuple[str, Point], Number],
) -> Callable[[str, Point], Number | None]:
    return lambda name, point: assignment.get((name, point))


def _search(
    system: System,
    monoid: Monoid,
    elements: Mapping[str, Element],
    what: str,
    sides: Callable[..., tuple[Element, Element]],
    most: int | None = None,
    positive: frozenset[str] = frozenset(),
) -> tuple[Refuted | None, int]:
    """The first assignment, smallest numbers first, under which the sides differ; and how many were tried. The arguments of
    `lift` that are `positive` are not negative."""
    tried = 0
    left, right = sides(*elements.values())
    special = telling_numbers((*left.values(), *right.values()))
    for assignment in islice(_assignments(system, elements, special), most):
        if positive:
            held = [s for s in assignment if s[0].rpartition(".")[2] in positive]
            assignment |= {s: -x if (x := real(assignment[s])) < 0 else x for s in held}
        world = World(system, seed=0, draw=_values(assignment))
        try:
            gap = _difference(monoid, left, right, world)
        except (NotExact, ZeroDivisionError, ArithmeticError):
            continue
        tried += 1
        if gap is not None:
            field, one, other = gap
            shown = "; ".join(f"{n} = {_element(monoid, element, world)}" for n, element in elements.items())
            whole = f"`{monoid.name}`" if len(monoid.fields) == 1 else f"the field `{field}`"
            text = f"{shown}: {what} give {show_number(one)} and {show_number(other)} in {whole}"
            return Refuted(text, (("left", show_number(one)), ("right", show_number(other)))), tried
    return None, tried


def _assignments(
    system: System, elements: Mapping[str, Element], special: Sequence[Fraction]
) -> Iterator[dict[tuple[str, Point], Number]]:
    """The smallest combinations of integers where there are few entries, then random ones, then random rationals; last those
    of numbers that tell, and of their opposites."""
    world = World(system)
    leaves = dict.fromkeys(r for e in elements.values() for node in e.values() for r in reads(node) if str(r.attr)[0] == "~")
    types = {(str(r.attr), p): r.dtype for r in leaves
             for p in product(*(range(world.size(str(i.attr))) for i in r.args))}  # fmt: skip
    yield from _combined(types, [_small(t) for t in types.values()])
    rng = Random(1)
    for _ in range(_TRIALS):
        yield {s: _drawn(t, rng) for s, t in types.items()}
    if special:
        tried = (Fraction(0), *(v * sign for v in sorted(special, key=abs)[:_SPECIAL] for sign in (1, -1)))
        whole = tuple(Fraction(ceil(v) if v > 0 else floor(v)) for v in tried)
        given: dict[str, tuple[Number, ...]] = {"real": tried, "int": whole}
        yield from _combined(types, [given.get(t, _small(t)) for t in types.values()])


def _combined(
    slots: Mapping[tuple[str, Point], str], choices: Sequence[tuple[Number, ...]]
) -> Iterator[dict[tuple[str, Point], Number]]:
    """All combinations of values, the smallest first; random ones of the first three where there are too many."""
    if prod(map(len, choices)) <= _SEARCH:
        for values in islice(sorted(product(*choices), key=_magnitude), _SMALLEST):
            yield dict(zip(slots, values, strict=True))
    else:
        rng = Random(0)
        for _ in range(_TRIALS):
            yield {s: rng.choice(values[:3]) for s, values in zip(slots, choices, strict=True)}


def _small(dtype: str) -> tuple[Number, ...]:
    """The smallest values of a type, what breaks most laws first."""
    return SMALL[:2] if dtype == "bool" else (*SMALL[:2], *_TURNED, SMALL[2]) if dtype == "complex" else SMALL


def _drawn(dtype: str, rng: Random) -> Number:
    """Any value of a type."""
    if dtype == "bool":
        return Fraction(rng.randint(0, 1))
    if dtype == "complex":
        return Complex(_rational(rng), _rational(rng))
    return Fraction(rng.randint(-9, 9)) if dtype == "int" else _rational(rng)


def _rational(rng: Random) -> Fraction:
    return Fraction(rng.randint(-9, 9), rng.choice((1, 2, 3, 5)))


def _magnitude(values: tuple[Number, ...]) -> tuple[Fraction, int, list[Fraction]]:
    """Smallest first, positive before negative: 0, 0, 1 before 0, 0, -1 before 0, 1, 0."""
    parts: list[Real] = []
    for x in values:
        parts += [x.re, x.im] if isinstance(x, Complex) else [x]
    sizes = [abs(Fraction(v)) for v in parts]
    return sum(sizes, Fraction(0)), sum(v < 0 for v in parts), sizes


def _difference(monoid: Monoid, left: Element, right: Element, world: World) -> tuple[str, Number, Number] | None:
    with digits():
        for field, indices in monoid.fields:
            for point in product(*(range(world.size(i)) for i in indices)):
                at = dict(zip(indices, point, strict=True))
                one, other = evaluate(left[field], at, world), evaluate(right[field], at, world)
                if not agree(one, other):
                    return field, one, other
    return None


def _element(monoid: Monoid, element: Element, world: World) -> str:
    parts = []
    for field, indices in monoid.fields:
        points = product(*(range(world.size(i)) for i in indices))
        values = [show_number(evaluate(element[field], dict(zip(indices, p, strict=True)), world)) for p in points]
        parts.append(values[0] if len(values) == 1 else "[" + ", ".join(islice(values, 4)) + "]")
    return parts[0] if len(parts) == 1 else "(" + ", ".join(parts) + ")"


def _equal_in_sympy(a: Node, b: Node) -> bool:
    """For elementwise expressions, by simplification of their difference."""
    if any(n.op not in _SYMPY_OPS for side in (a, b) for n in walk(side)):
        return False
    import sympy

    symbols = {r: sympy.Symbol(f"s{k}", real=True) for k, r in enumerate({*reads(a), *reads(b)})}
    try:
        return bool(sympy.simplify(_sympy(a, symbols, sympy) - _sympy(b, symbols, sympy)) == 0)
    except (TypeError, ValueError, NotImplementedError, RecursionError):
        return False


def _sympy(node: Node, symbols: Mapping[Node, Any], s: Any) -> Any:
    if node in symbols:
        return symbols[node]
    if node.op == "const":
        named = {"inf": s.oo, "pi": s.pi, "i": s.I}
        return named[node.attr] if isinstance(node.attr, str) else s.Rational(str(Fraction(node.attr)))
    if node.op in ("index", "size"):
        return s.Symbol(f"{node.op}_{node.attr}", integer=True)
    args = [_sympy(a, symbols, s) for a in node.args]
    table: dict[str, Callable[..., Any]] = {
        "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": lambda x, y: x / y,
        "neg": lambda x: -x, "pow": lambda x, y: x**y, "maximum": s.Max, "minimum": s.Min, "exp": s.exp,
    }  # fmt: skip
    return table[node.op](*args)
