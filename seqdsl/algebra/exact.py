"""Evaluation of index expressions in exact rationals, and to 50 digits where a function leaves them. Never in floats.

In a `World`, axes get small lengths and every read of a tensor at a point is one number, drawn once, by a hash of the
seed: two expressions that are equal for all inputs have equal values, whatever stands outside an axis. In `Equations`,
a system at given sizes and inputs, a derived tensor is what its equation says. A rational result is exact; a `Decimal`
in it says that some function was evaluated to 50 digits.

Architecture invariant: shares no code with the interpreter (numpy, float64), and with the canonical form that it checks
only the rows that write norms through sums (`expand`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, getcontext
from fractions import Fraction
from functools import lru_cache
from itertools import product
from random import Random

from seqdsl.algebra.expand import EXPAND
from seqdsl.algebra.numbers import (
    DIGITS,
    FUNCTIONS,
    Complex,
    NotExact,
    NoValue,
    Number,
    TooMuch,
    Undefined,
    digits,
    exp,
    folded,
    inverse,
    log,
    pi,
    plus,
    real,
    times,
)
from seqdsl.ir import build
from seqdsl.ir.node import Node, read_names
from seqdsl.ir.ops import OPS, bound
from seqdsl.ir.sizes import Sizes
from seqdsl.ir.system import System

BUDGET = 60_000  # nodes evaluated; a system that needs more is left to floats
_REMEMBERED = 10_000  # nodes whose rules are known
Point = tuple[int, ...]
At = Mapping[str, int]  # where the free indices are


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
    totals: dict[object, Number] = field(default_factory=dict)  # of reductions, and of softmaxes for all their entries
    ranges: dict[object, list[dict[str, int]]] = field(default_factory=dict)  # of guards that read nothing
    spent: int = 0

    def option(self, name: str) -> int:
        """The value of an option."""
        return 2

    def opened(self, name: str, point: Point) -> tuple[Node, dict[str, int]] | None:
        """The expression that gives a tensor's value at a point, and where to evaluate it; None where it is a draw."""
        return None

    def spend(self, count: int) -> None:
        """Called for every node evaluated, for many at once. Raises `TooMuch` beyond the budget."""
        self.spent += count
        if self.spent > BUDGET:
            raise TooMuch("more than fits an exact evaluation")

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
        found = self.drawn.get((name, point))
        if found is None:
            given = self.draw(name, point)
            found = self.drawn[name, point] = self._random(name, point, dtype) if given is None else given
        return found

    def _random(self, name: str, point: tuple[int, ...], dtype: str) -> Number:
        rng = Random(f"{self.seed}:{name}:{point}")
        if dtype == "bool":
            return Fraction(rng.randint(0, 1))
        if dtype == "int":
            return Fraction(rng.randint(0, 2))
        if dtype == "complex":
            return Complex(_rational(rng), _rational(rng))
        return Fraction(rng.randint(-2, 2)) if self.small else _rational(rng)


@dataclass
class Equations(World):
    """A system's equations at given sizes. Inputs and parameters come from `draw`; outside its axes a tensor reads its
    edges, else 0 (LANGUAGE 10 and 19). Errors: `TooMuch` beyond a budget of nodes."""

    sizes: Sizes = field(default_factory=Sizes)

    def size(self, name: str) -> int:
        """The length of an index's axis."""
        return self.sizes[name]

    def option(self, name: str) -> int:
        """The value of an option."""
        return self.sizes.options[name]

    def value(self, name: str, point: Point, dtype: str) -> Number:
        """A tensor at a point, by its equation."""
        found = self.drawn.get((name, point))
        if found is None:
            opened = self.opened(name, point)
            if opened is None:
                return super().value(name, point, dtype)
            found = self.drawn[name, point] = _evaluate(*opened, self)
        return found

    def opened(self, name: str, point: Point) -> tuple[Node, dict[str, int]] | None:
        """The equation at a point; outside the axes the edge that covers it, or 0."""
        tensor = self.system.tensors[name]
        outside = [k for k, i in enumerate(tensor.indices) if not 0 <= point[k] < self.size(i)]
        if not outside:
            given = tensor.rhs if tensor.kind in ("derived", "carry") else None
            return None if given is None else (given, dict(zip(tensor.indices, point, strict=True)))
        for edge in tensor.edges:
            if edge.position in outside and _evaluate(edge.point, {}, self) == point[edge.position]:
                rest = [build.const(p) for k, p in enumerate(point) if k != edge.position]
                return build.read(edge.tensor, rest, tensor.dtype), {}
        return build.ZERO, {}


def _rational(rng: Random) -> Fraction:
    return Fraction(rng.choice([k for k in range(-9, 10) if k]), rng.choice((1, 2, 3, 4, 5)))


def evaluate(node: Node, at: At, world: World) -> Number:
    """The value where the free indices are at `at`. Raises `NotExact`."""
    if getcontext().prec == DIGITS:  # inside another evaluation
        return _evaluate(node, at, world)
    with digits():
        return _evaluate(node, at, world)


def _evaluate(node: Node, at: At, world: World) -> Number:
    count, value = rule(node)
    world.spend(count)
    return value(at, world)


@lru_cache(_REMEMBERED)
def rule(node: Node) -> tuple[int, Callable[[At, World], Number]]:
    """How a node is evaluated, with what there is to look up looked up once, for terms are evaluated at many points; and
    how many nodes that takes, but for those of branches and of bodies, which are counted when they are evaluated."""
    op, args = node.op, node.args
    if (known := whole(node)) is not None:
        count, number = known
        return count, lambda at, world: fraction(number(at, world))
    if op in FUNCTIONS:
        return _applied(FUNCTIONS[op], args)
    if op == "read":
        count, place = point_of(node)
        name, dtype = str(node.attr), node.dtype
        return 1 + count, lambda at, world: world.value(name, place(at, world), dtype)
    if op == "const":
        return 1, lambda at, world: _constant(node)
    if op == "where":
        count, condition = rule(args[0])
        return 1 + count, lambda at, world: _evaluate(args[1 if condition(at, world) != 0 else 2], at, world)
    if OPS[op].binding == "reduce":
        return 1, lambda at, world: _reduced(node, at, world)
    if op in ALONG:
        return 1, lambda at, world: ALONG[op](node, at, world)
    if op in NORMS:
        count, value = rule(expanded(node))
        return 1 + count, value
    return 1, lambda at, world: _no_value(op)


def _no_value(op: str) -> Number:
    raise NoValue(f"`{op}`")


def _applied(function: Callable[..., Number], args: tuple[Node, ...]) -> tuple[int, Callable[[At, World], Number]]:
    rules = [rule(a) for a in args]
    count = 1 + sum(c for c, _ in rules)
    a, b = rules[0][1], rules[-1][1]
    if len(rules) == 1:
        return count, lambda at, world: function(a(at, world))
    if len(rules) == 2:
        return count, lambda at, world: function(a(at, world), b(at, world))
    return count, lambda at, world: function(*[value(at, world) for _, value in rules])


@lru_cache(_REMEMBERED)
def point_of(read: Node) -> tuple[int, Callable[[At, World], Point]]:
    """Where a read reads, as `rule` says what it is."""
    names = [str(a.attr) for a in read.args if a.op == "index"]
    if len(names) == len(read.args) > 1:  # as in nearly all reads
        here = operator.itemgetter(*names)
        return len(names), lambda at, world: here(at)
    places = [_position(a) for a in read.args]
    return sum(c for c, _ in places), lambda at, world: tuple([place(at, world) for _, place in places])


def _position(subscript: Node) -> tuple[int, Callable[[At, World], int]]:
    if (known := whole(subscript)) is not None:
        return known
    count, value = rule(subscript)
    return count, lambda at, world: int(real(value(at, world)))


@lru_cache(_REMEMBERED)
def whole(node: Node) -> tuple[int, Callable[[At, World], int]] | None:
    """The rule of what is made of positions and sizes alone, by arithmetic and comparisons of whole numbers; else None."""
    name = str(node.attr)
    match node.op:
        case "index":
            return 1, lambda at, world: at[name]
        case "size":
            return 1, lambda at, world: world.size(name)
        case "option":
            return 1, lambda at, world: world.option(name)
        case "first":
            return 1, lambda at, world: 0
        case "const" if isinstance(node.attr, int):
            number = int(node.attr)
            return 1, lambda at, world: number
    operands = [known for a in node.args if (known := whole(a)) is not None] if node.op in WHOLE else []
    if not operands or len(operands) < len(node.args):
        return None
    function, count = WHOLE[node.op], 1 + sum(c for c, _ in operands)
    a, b = operands[0][1], operands[-1][1]
    if len(operands) == 1:
        return count, lambda at, world: function(a(at, world))
    return count, lambda at, world: function(a(at, world), b(at, world))


def _divisor(x: int) -> int:
    if x == 0:
        raise Undefined("division by zero")
    return x


WHOLE: dict[str, Callable[..., int]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "neg": operator.neg,
    "floor_div": lambda a, b: a // _divisor(b), "mod": lambda a, b: a % _divisor(b), "maximum": max, "minimum": min,
    "lt": operator.lt, "le": operator.le, "eq": operator.eq, "ne": operator.ne,
    "and": lambda a, b: bool(a and b), "or": lambda a, b: bool(a or b), "not": operator.not_,
}  # fmt: skip
fraction = lru_cache(1000)(Fraction)  # of whole numbers, the same few again and again


@lru_cache(1000)
def _constant(node: Node) -> Number:
    value = node.attr
    if value == "i" and isinstance(value, str):
        return Complex(Fraction(0), Fraction(1))
    if isinstance(value, str):
        return Decimal("Infinity") if value == "inf" else pi()
    return Fraction(int(value)) if isinstance(value, bool) else Fraction(value)


@lru_cache(1000)
def expanded(node: Node) -> Node:
    """A norm through sums."""
    return EXPAND[node.op](node)


def points(node: Node, guard: Node, at: At, world: World) -> list[dict[str, int]]:
    """The bound points of a reduction at which the guard holds, in row-major order: each is `at` and they."""
    if read_names(guard):
        return list(_points(node, guard, at, world))
    names = bound(node)
    key = names, guard, tuple([at[n] for n in _others(guard, names)])
    if key not in world.ranges:
        world.ranges[key] = [{n: p[n] for n in names} for p in _points(node, guard, at, world)]
    return [{**at, **p} for p in world.ranges[key]]


def _points(node: Node, guard: Node, at: At, world: World) -> Iterator[dict[str, int]]:
    names = bound(node)
    for point in product(*(range(world.size(n)) for n in names)):
        here = {**at, **dict(zip(names, point, strict=True))}
        if guard is build.TRUE or _evaluate(guard, here, world) != 0:
            yield here


def _reduced(node: Node, at: At, world: World) -> Number:
    row = row_of(node, at)
    if row not in world.totals:
        world.totals[row] = _reduce(node, at, world)
    return world.totals[row]


def _reduce(node: Node, at: At, world: World) -> Number:
    body, guard = node.args
    values = [_evaluate(body, here, world) for here in points(node, guard, at, world)]
    if node.op in ("sum", "mean"):
        total = folded(plus, values, Fraction(0))
        return total if node.op == "sum" or not values else times(total, Fraction(1, len(values)))
    if node.op == "prod":
        return folded(times, values, Fraction(1))
    reals = [real(v) for v in values]
    if node.op in ("any", "all"):
        return Fraction(int((any if node.op == "any" else all)(v != 0 for v in reals)))
    if node.op in ("max", "min"):
        empty = Decimal("-Infinity" if node.op == "max" else "Infinity")
        return (max if node.op == "max" else min)(reals, default=empty)
    if node.op == "logsumexp":
        return log(folded(plus, [exp(v) for v in reals], Fraction(0)))
    if node.op == "argmax" and reals:
        return Fraction(reals.index(max(reals)))
    raise NotExact(f"`{node.op}`")


def _softmax(node: Node, at: At, world: World) -> Number:
    body, guard = node.args
    if _evaluate(guard, at, world) == 0:
        return Fraction(0)
    row = row_of(node, at)
    if row not in world.totals:
        weights = [exp(_evaluate(body, here, world)) for here in points(node, guard, at, world)]
        world.totals[row] = folded(plus, weights, Fraction(0))
    return times(exp(_evaluate(body, at, world)), inverse(world.totals[row]))


def row_of(node: Node, at: At) -> tuple[Node, tuple[int, ...]]:
    """What decides a reduction, and what the entries of an operator along an axis share: where its other indices are."""
    return node, tuple([at[n] for n in _others(node, bound(node))])


@lru_cache(1000)
def _others(node: Node, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(node.free.difference(names)))


def _rank(node: Node, at: At, world: World) -> Number:
    """How many entries beat this one, ties to the lower index (LANGUAGE 15)."""
    body, guard = node.args
    names = bound(node)
    own, place = real(_evaluate(body, at, world)), [at[n] for n in names]
    others = [(real(_evaluate(body, p, world)), [p[n] for n in names]) for p in points(node, guard, at, world)]
    return Fraction(sum(v > own or (v == own and p < place) for v, p in others))


def _cumsum(node: Node, at: At, world: World) -> Number:
    body, guard = node.args
    if _evaluate(guard, at, world) == 0:
        return Fraction(0)
    names = bound(node)
    earlier = [p for p in points(node, guard, at, world) if [p[n] for n in names] <= [at[n] for n in names]]
    return folded(plus, [_evaluate(body, p, world) for p in earlier], Fraction(0))


ALONG: dict[str, Callable[[Node, At, World], Number]] = {
    "softmax": _softmax, "rank": _rank, "cumsum": _cumsum,
}  # fmt: skip
NORMS = frozenset(("rms_norm", "layer_norm", "l2_norm"))
