"""What a block of scores is made of: products of features, tensors along rows, columns or neither, positions, numbers.

`z` in base 2 and the factor f of the weights are expressions over leaves that a kernel loads; whatever else ties rows to
columns has no kernel, and `Refused` says what it was. Gradients come from the same expressions, by the rows of
`derivatives`. Entry points: `normal_form`, `score`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound, remake

from ...torch_module.context import Context
from ...torch_module.contractions import signed_factors
from ...torch_module.names import Names
from ...torch_module.operands import Operand
from ...torch_module.values import BATCH
from .derivatives import Refused
from .numbers import named
from .texts import has_text

LOG2_E = build.const(Fraction(math.log2(math.e)))
LN_2 = build.const(Fraction(math.log(2)))


# What the kernels call their own.
RESERVED = frozenset(
    """tl triton values o level d_o d_values delta T S E BT BS BE PRECISION plane own blocks batch begin whole end whole_end
    first_row last_row first_column last_column row column top total found empty shift higher shrink z factor weight d_weight
    d_z d_factor pulled masked part low high other others rest place heads product PACKED KEEPS spans row_at column_at zeros lows
    highs counted at until zero sequence last_sequence""".split()
)


@dataclass(frozen=True)
class Leaf:
    """A tensor that a kernel loads. `lead` are its dimensions outside rows and columns, the batch among them.

    A table is read at places that positions give: `places` are those, for each of its own indices that is not of `lead`,
    and `roles` name its dimensions by its own indices. It gets no gradient.
    """

    name: str
    node: Node
    lead: tuple[str, ...]
    row: bool
    column: bool
    feature: str = ""
    places: tuple[Node, ...] = ()
    roles: tuple[tuple[str, str], ...] = ()

    @property
    def real(self) -> bool:
        """May it need a gradient?"""
        return self.node.dtype == "real" and not self.places


@dataclass
class Score:
    """See the module's docstring. `dots` are sums over a feature: of one leaf along the rows and one along the columns."""

    lead: tuple[str, ...]
    row: str
    column: str
    z: Node
    factor: Node
    facts: list[Node]
    shifts: dict[str, Node]  # the position of the first row and of the first column
    dots: dict[Node, tuple[Leaf, Leaf]] = field(default_factory=dict)
    scalars: dict[Node, Leaf] = field(default_factory=dict)
    numbers: dict[Node, str] = field(default_factory=dict)  # what Python knows at each call: an argument of the kernel
    names: Names = field(default_factory=lambda: Names(RESERVED))
    packed: bool = False  # may rows and columns be those of packed sequences?

    def leaves(self) -> list[Leaf]:
        """Every tensor once, in the order in which the score has them."""
        return list(dict.fromkeys([*(x for pair in self.dots.values() for x in pair), *self.scalars.values()]))

    def number(self, node: Node) -> str:
        """The argument that holds a number; a constant is its own text."""
        value = build.value_of(node)
        if isinstance(value, int):
            return str(value)
        if node not in self.numbers:
            self.numbers[node] = named(self.names, node)
        return self.numbers[node]


def is_static(ctx: Context, node: Node) -> bool:
    """Is it a number that Python knows at each call?"""
    return not node.free - set(ctx.fixed) and not any(n.op == "read" or OPS[n.op].binding for n in walk(node))


def normal_form(ctx: Context, node: Node, row: str, column: str) -> Node:
    """The same scores with every sum over features a product of two, and divisions by numbers products."""
    if not _tied(node, row, column) or not node.args:
        return node
    if node.op == "sum":
        return _products(ctx, node, row, column)
    if OPS[node.op].binding:
        return node
    args = tuple(normal_form(ctx, a, row, column) for a in node.args)
    if node.op == "div" and is_static(ctx, args[1]):
        return build.mul(args[0], build.div(build.const(Fraction(1)), args[1]))
    return remake(node, args)


def _tied(node: Node, row: str, column: str) -> bool:
    return row in node.free and column in node.free


def _products(ctx: Context, node: Node, row: str, column: str) -> Node:
    """`sum[d] q * k * w / c` as `1 / c * sum[d] (q * w) * k`."""
    body, guard = node.args
    if body.op in ("add", "sub"):
        parts = [build.reduce("sum", bound(node), part, guard) for part in body.args]
        return normal_form(ctx, build.make(body.op, *parts), row, column)
    sign, ups, downs = signed_factors(ctx, body)
    names = set(bound(node))
    inner = [f for f in ups if f.free & names] + [_inverse(f) for f in downs if f.free & names]
    if guard is not build.TRUE or len(names) != 1 or any(_tied(f, row, column) for f in inner):
        return node
    left = build.product(f for f in inner if column not in f.free)
    right = build.product(f for f in inner if column in f.free)
    if build.ONE in (left, right):
        return node
    found = build.reduce("sum", bound(node), build.mul(left, right))
    outer = build.product(f for f in ups if not f.free & names)
    for f in downs:
        if not f.free & names:
            outer = build.mul(outer, _inverse(f))
    found = build.mul(normal_form(ctx, outer, row, column), found)
    return found if sign > 0 else build.neg(found)


def _inverse(node: Node) -> Node:
    return build.div(build.const(Fraction(1)), node)


def base_two(ctx: Context, node: Node) -> Node:
    """log2(e) times the scores, multiplied into their numbers where it can be."""
    if node.op in ("add", "sub"):
        return remake(node, tuple(base_two(ctx, a) for a in node.args))
    if node.op == "neg":
        return build.neg(base_two(ctx, node.args[0]))
    if node.op == "mul":
        a, b = node.args
        for one, rest in ((a, b), (b, a)):
            if is_static(ctx, one):
                return build.mul(build.mul(one, LOG2_E), rest)
        if any(x.op in ("mul", "neg") for x in (a, b)):
            return build.mul(base_two(ctx, a), b) if a.op in ("mul", "neg") else build.mul(a, base_two(ctx, b))
    return build.mul(LOG2_E, node)


def score(
    ctx: Context,
    lead: tuple[str, ...],
    row: str,
    column: str,
    parts: tuple[Node, Node, list[Node]],
    given: list[Operand],
) -> Score:
    """The leaves of scores, factor and facts (in normal form), each an operand that is given. Raises `Refused`."""
    z, factor, facts = parts
    shifts = {row: build.ZERO, column: build.ZERO}
    if ctx.past:
        stream = build.make("first", attr=ctx.system.stream)
        shifts = {i: stream if ctx.is_new(i) and ctx.on_stream(i) else build.ZERO for i in (row, column)}
    packed = bool(ctx.ends) and ctx.on_stream(row) and ctx.on_stream(column)
    found = Score(lead, row, column, base_two(ctx, z), factor, facts, shifts, packed=packed)
    search = _Search(ctx, found, {o.node: o for o in given})
    for node in (found.z, factor, *facts):
        search.visit(node)
    for shift in shifts.values():
        if shift is not build.ZERO:
            found.number(shift)
    return found


@dataclass(frozen=True)
class _Search:
    ctx: Context
    score: Score
    given: dict[Node, Operand]

    def visit(self, node: Node) -> None:
        """Note the leaves below a node."""
        ours = {self.score.row, self.score.column}
        if node.op == "const":
            return
        if is_static(self.ctx, node):
            self.score.number(node)
        elif node in self.score.dots or node in self.score.scalars:
            return
        elif node.op == "index" and node.attr in ours or _positions(node, ours) and has_text(node):
            for arg in node.args:
                self.visit(arg)
        elif node in self.given:
            self.score.scalars[node] = self._leaf(node, "")
        elif node.op == "sum" and self._is_dot(node):
            left, right = (self._leaf(x, bound(node)[0]) for x in node.args[0].args)
            if left.column or right.row or not left.row or not right.column:
                raise Refused("a product over features of one side")
            self.score.dots[node] = left, right
        elif has_text(node):
            for arg in node.args:
                self.visit(arg)
        elif node.op == "read" and build.read(str(node.attr), [], node.dtype) in self.given:
            self.score.scalars[node] = self._table(node, ours)
        else:
            raise Refused(f"`{node.op}` of both indices")

    def _table(self, node: Node, ours: set[str]) -> Leaf:
        """A tensor at places of each pair: of heads and the like its own, elsewhere made of positions and numbers."""
        key = build.read(str(node.attr), [], node.dtype)
        dims = self.given[key].outer.dims
        places: list[Node] = []
        roles = {}
        for own, place in zip(self.ctx.system.tensors[str(node.attr)].indices, node.args, strict=True):
            if place.op == "index" and place.attr in self.score.lead:
                roles[own] = str(place.attr)
            elif _positions(place, ours) or is_static(self.ctx, place):
                roles[own] = f"at{len(places)}"
                places.append(place)
                self.visit(place)
            else:
                raise Refused(f"`{node.attr}` at places that are data")
        lead = tuple(d for d in (BATCH, *self.score.lead) if d in (dims if d == BATCH else roles.values()))
        name = self.score.names.fresh(self.given[key].inner.text)
        return Leaf(name, key, lead, True, True, "", tuple(places), tuple(roles.items()))

    def _is_dot(self, node: Node) -> bool:
        body = node.args[0]
        return node.args[1] is build.TRUE and body.op == "mul" and all(x in self.given for x in body.args)

    def _leaf(self, node: Node, feature: str) -> Leaf:
        given = self.given[node]
        taken = [x for x in self.score.leaves() if x.node is node and x.feature == feature]
        if taken:
            return taken[0]
        dims, known = given.outer.dims, {BATCH, *self.score.lead, self.score.row, self.score.column}
        if set(dims) - known != ({feature} if feature else set()) or node.dtype == "complex":
            raise Refused(f"an operand along {', '.join(dims)}")
        name = self.score.names.fresh(given.inner.text)
        lead = tuple(d for d in (BATCH, *self.score.lead) if d in dims)
        return Leaf(name, node, lead, self.score.row in dims, self.score.column in dims, feature)


def _positions(node: Node, ours: set[str]) -> bool:
    """Is it made of positions and numbers alone?"""
    return node.free <= ours and not any(n.op == "read" or OPS[n.op].binding for n in walk(node))
