"""Declared monoids: associativity, identity, commutativity, proved, tested or refuted (rule 34, DERIVATIONS 6).

A law is an equation between elements built with the user's own `combine`. In order: the smallest numbers that break
it, by exact evaluation (a refutation); equality of canonical forms (a proof for all sizes); sympy, for max and min; else
random exact evaluation, which tests. Floats are never used: (1 + 1) - 1 and 1 + (1 - 1) differ under a saturating sum
only where it saturates, and random small floats miss that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice, product
from random import Random
from typing import Any

from seqdsl.algebra.equal import same
from seqdsl.algebra.exact import World, evaluate
from seqdsl.algebra.numbers import NotExact, Number, agree, digits, show_number
from seqdsl.algebra.verdict import Proved, Refuted, Tested, Unknown, Verdict
from seqdsl.ir import build
from seqdsl.ir.build import Fraction
from seqdsl.ir.node import Node, reads, rebuild, walk
from seqdsl.ir.system import Monoid, System, Tensor

Element = dict[str, Node]  # field -> value over the field's own indices
SMALL = tuple(Fraction(n) for n in (0, 1, -1, 2, -2))
_TRIALS = 40
_SEARCH = 4000
_SMALLEST = 500
_FIRST = 60  # assignments that are tried before anything is proved: most wrong laws fail at once
_SYMPY_OPS = frozenset("const read add sub mul div neg pow maximum minimum index size exp".split())


def monoid_verdicts(system: System, name: str) -> dict[str, Verdict]:
    """Each law by its name: associative, commutative, and identity where one is declared."""
    monoid = system.monoids[name]
    x, y = (_free(monoid, n) for n in "xy")
    found: dict[str, Verdict] = {
        "associative": associativity(system, name),
        "commutative": _law(system, monoid, "commutativity", combine(monoid, x, y), combine(monoid, y, x), "xy",
                            "x . y and y . x"),
    }  # fmt: skip
    if monoid.identity is not None:
        one = dict(zip((n for n, _ in monoid.fields), monoid.identity, strict=True))
        left = _law(system, monoid, "left identity", combine(monoid, one, x), x, "x", "e . x and x")
        right = _law(system, monoid, "right identity", combine(monoid, x, one), x, "x", "x . e and x")
        found["identity"] = left if not left.holds else right
    return found


def associativity(system: System, name: str) -> Verdict:
    """Is (x . y) . z always x . (y . z)?"""
    monoid = system.monoids[name]
    x, y, z = (_free(monoid, n) for n in "xyz")
    left, right = combine(monoid, combine(monoid, x, y), z), combine(monoid, x, combine(monoid, y, z))
    return _law(system, monoid, "associativity", left, right, "xyz", "(x . y) . z and x . (y . z)")


def _free(monoid: Monoid, name: str) -> Element:
    """An arbitrary element: a tensor for each field."""
    return {f: build.read(f"{name}.{f}", [build.index(i) for i in idx], "real") for f, idx in monoid.fields}


def combine(monoid: Monoid, a: Element, b: Element) -> Element:
    """The element a . b as expressions, the user's equations written out."""
    known: dict[str, tuple[tuple[str, ...], Node]] = {}
    for side, element in (("a", a), ("b", b)):
        for field, indices in monoid.fields:
            known[f"{side}.{field}"] = (indices, element[field])
    for equation in monoid.combine:
        known[equation.name] = (equation.indices, _open(equation, known))
    return {f: known[f][1] for f, _ in monoid.fields}


def _open(equation: Tensor, known: Mapping[str, tuple[tuple[str, ...], Node]]) -> Node:
    def change(node: Node) -> Node | None:
        if node.op != "read" or node.attr not in known:
            return None
        indices, value = known[str(node.attr)]
        return build.substitute(value, dict(zip(indices, node.args, strict=True)))

    assert equation.rhs is not None
    return rebuild(equation.rhs, change)


def _law(system: System, monoid: Monoid, law: str, left: Element, right: Element, names: str, what: str) -> Verdict:
    refuted, _ = _search(system, monoid, left, right, names, what, most=_FIRST)
    if refuted is not None:
        return refuted
    if all(same(system, left[f], right[f]) for f in left):
        return Proved(law, "symbolic identity: equal canonical forms, for all sizes")
    refuted, tried = _search(system, monoid, left, right, names, what)
    if refuted is not None:
        return refuted
    if _by_order_types(system, monoid, left, right, names):
        return Proved(law, "all cases: the operator only compares and selects, so order types are all there is")
    if all(_equal_in_sympy(left[f], right[f]) for f in left):
        return Proved(law, "symbolic identity (sympy), entry by entry")
    if tried == 0:
        return Unknown("its operators have no exact evaluation here")
    return Tested(tried, 0.0, "exact evaluation, small integers and random rationals; functions to 40 digits")


_SELECTING = frozenset("where lt le eq ne and or not maximum minimum read index".split())


def _by_order_types(system: System, monoid: Monoid, left: Element, right: Element, names: str) -> bool:
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
    slots = [(f"{n}.{f}", ()) for n in names for f, _ in monoid.fields]
    values = [Fraction(k) for k in range(len(names))]
    if len(values) ** len(slots) > _SEARCH:
        return False
    for chosen in product(values, repeat=len(slots)):
        assignment: dict[tuple[str, tuple[int, ...]], Number] = dict(zip(slots, chosen, strict=True))
        world = World(system, draw=_values(assignment))
        if _difference(monoid, left, right, world) is not None:
            return False
    return True


def _values(
    assignment: Mapping[tuple[str, tuple[int, ...]], Number],
) -> Callable[[str, tuple[int, ...]], Number | None]:
    return lambda name, point: assignment.get((name, point))


def _search(
    system: System, monoid: Monoid, left: Element, right: Element, names: str, what: str, most: int | None = None
) -> tuple[Refuted | None, int]:
    """The first assignment, smallest numbers first, under which the sides differ; and how many were tried."""
    tried = 0
    for assignment in islice(_assignments(system, monoid, names), most):
        world = World(system, seed=0, draw=_values(assignment))
        try:
            gap = _difference(monoid, left, right, world)
        except (NotExact, ZeroDivisionError, ArithmeticError):
            continue
        tried += 1
        if gap is not None:
            field, one, other = gap
            shown = "; ".join(f"{n} = {_element(monoid, n, assignment)}" for n in names)
            whole = f"`{monoid.name}`" if len(monoid.fields) == 1 else f"the field `{field}`"
            text = f"{shown}: {what} give {show_number(one)} and {show_number(other)} in {whole}"
            return Refuted(text, (("left", show_number(one)), ("right", show_number(other)))), tried
    return None, tried


def _assignments(system: System, monoid: Monoid, names: str) -> Iterator[dict[tuple[str, tuple[int, ...]], Number]]:
    """The smallest combinations of integers where there are few entries, then random ones, then random rationals."""
    world = World(system)
    slots = [(f"{n}.{f}", p) for n in names for f, idx in monoid.fields
             for p in product(*(range(world.size(i)) for i in idx))]  # fmt: skip
    if len(SMALL) ** len(slots) <= _SEARCH:
        for values in islice(sorted(product(SMALL, repeat=len(slots)), key=_magnitude), _SMALLEST):
            yield dict(zip(slots, values, strict=True))
    else:
        rng = Random(0)
        for _ in range(_TRIALS):
            yield {s: rng.choice(SMALL[:3]) for s in slots}
    rng = Random(1)
    for _ in range(_TRIALS):
        yield {s: Fraction(rng.randint(-9, 9), rng.choice((1, 2, 3, 5))) for s in slots}


def _magnitude(values: tuple[Fraction, ...]) -> tuple[Fraction, int, list[Fraction]]:
    """Smallest first, positive before negative: 0, 0, 1 before 0, 0, -1 before 0, 1, 0."""
    return sum((abs(v) for v in values), Fraction(0)), sum(v < 0 for v in values), [abs(v) for v in values]


def _difference(monoid: Monoid, left: Element, right: Element, world: World) -> tuple[str, Number, Number] | None:
    with digits():
        for field, indices in monoid.fields:
            for point in product(*(range(world.size(i)) for i in indices)):
                at = dict(zip(indices, point, strict=True))
                one, other = evaluate(left[field], at, world), evaluate(right[field], at, world)
                if not agree(one, other):
                    return field, one, other
    return None


def _element(monoid: Monoid, name: str, assignment: Mapping[tuple[str, tuple[int, ...]], Number]) -> str:
    parts = []
    for field, _ in monoid.fields:
        values = [show_number(v) for (n, _), v in assignment.items() if n == f"{name}.{field}"]
        parts.append(values[0] if len(values) == 1 else "[" + ", ".join(islice(values, 4)) + "]")
    return parts[0] if len(parts) == 1 else "(" + ", ".join(parts) + ")"


def _equal_in_sympy(a: Node, b: Node) -> bool:
    """For elementwise expressions with max and min, which the canonical form keeps opaque under sums."""
    if any(n.op not in _SYMPY_OPS for side in (a, b) for n in walk(side)):
        return False
    import sympy

    symbols = {r: sympy.Symbol(f"s{k}", real=True) for k, r in enumerate({*reads(a), *reads(b)})}
    try:
        gap = sympy.simplify(_sympy(a, symbols, sympy) - _sympy(b, symbols, sympy))
        return bool(gap == 0 or sympy.simplify(gap.rewrite(sympy.Piecewise)) == 0)
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
