"""The geometry of a nest of two loops: its axes, its distances, and the fronts that put every read earlier.

A nest reads itself (d, e) cells before, d steps along the outer loop's axis and e along the inner one's, each counted in
the direction in which its loop runs. Fronts slope * row + column = w with slope * d + e >= 1 for every read other than
one of the same cell can be taken one after another (Lamport 1974, the hyperplane method). Entry point: `geometry`.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.algebra.affine import NoMatch
from seqdsl.ir import build
from seqdsl.ir.dependence import Dependence, Loop, dependences_among, every_loop
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.order import difference
from seqdsl.ir.system import System, Tensor

STEEPEST = 8  # a slope: fronts are as many times more than rows
FURTHEST = 8  # cells: a front keeps as many beside the grid


@dataclass(frozen=True)
class Side:
    """One of the two axes: its index, and whether it runs downwards."""

    index: str
    reverse: bool
    streamed: bool  # upwards along the stream, where a state may come before

    def first(self) -> Node:
        """The first position of this run, counted upwards."""
        return make("first", attr=self.index) if self.streamed else build.ZERO

    def length(self) -> Node:
        """How many positions this run has."""
        return build.sub(build.size(self.index), self.first())

    def place(self, step: Node) -> Node:
        """The position that the axis comes to at a step, 0 being the first."""
        if self.reverse:
            return build.sub(build.sub(build.size(self.index), build.ONE), step)
        return build.add(self.first(), step)

    def step(self) -> Node:
        """At which step the axis comes to its index."""
        if self.reverse:
            return build.sub(build.sub(build.size(self.index), build.ONE), build.index(self.index))
        return build.sub(build.index(self.index), self.first())

    def beyond(self, count: int, *, end: bool = False) -> Node:
        """The position `count` steps before the first, or after the last: constant, for a run that starts at 0."""
        if self.reverse != end:
            return build.add(build.size(self.index), build.const(count - 1))
        return build.const(-count)

    def back(self, subscript: Node) -> int:
        """How many steps before the current one a subscript reads, which is known to be a fixed number."""
        gap = int(difference(build.index(self.index), subscript).get(None, build.Fraction(0)))
        return -gap if self.reverse else gap


@dataclass(frozen=True)
class Grid:
    """The geometry of a nest: w = slope * (cell) + (across), both counted from the first cell of the halo."""

    names: tuple[str, ...]
    along: Side
    across: Side
    slope: int
    lead: int
    before: int
    after: int
    reads: frozenset[tuple[str, int, int]]  # (tensor, d, e): what is read of it, so far before
    front: str = ""  # the indices of the fronts and of their cells
    cell: str = ""

    def lanes(self, tensor: Tensor) -> tuple[str, ...]:
        """What a tensor varies along besides the grid."""
        return tuple(i for i in tensor.indices if i not in (self.along.index, self.across.index))

    def column(self) -> Node:
        """Where a cell of a front lies across, counted from the halo's first."""
        return build.sub(build.index(self.front), build.mul(build.const(self.slope), build.index(self.cell)))

    def inside(self) -> Node:
        """Is a cell of a front on the grid?"""
        cell, column = build.index(self.cell), self.column()
        found = build.TRUE
        for node, margin, side in ((cell, self.lead, self.along), (column, self.before, self.across)):
            found = build.both(found, make("le", build.const(margin), node))
            found = build.both(found, make("lt", node, build.add(side.length(), build.const(margin))))
        return found

    def here(self) -> dict[str, Node]:
        """The positions of a front's cell on the grid."""
        row = build.sub(build.index(self.cell), build.const(self.lead))
        column = build.sub(self.column(), build.const(self.before))
        return {self.along.index: self.along.place(row), self.across.index: self.across.place(column)}

    def there(self) -> list[Node]:
        """The front, and the cell of it, that hold a position of the grid."""
        cell = build.add(self.along.step(), build.const(self.lead))
        column = build.add(self.across.step(), build.const(self.before))
        return [build.add(build.mul(build.const(self.slope), cell), column), cell]


def geometry(system: System, loop: Loop) -> Grid:
    """The two axes of a nest, the slope of its fronts, and how far it reads. Raises `NoMatch` with the reason."""
    inner = {(step.axis, step.reverse) for step in every_loop(loop.body)}
    if not inner:
        raise NoMatch(f"it runs over `{loop.axis}` alone, and is no grid", out_of_scope=True)
    if len(inner) > 1:
        axes = ", ".join(f"`{axis}`" for axis in dict.fromkeys([loop.axis, *sorted(axis for axis, _ in inner)]))
        raise NoMatch(f"it takes more than two loops, over {axes}")
    names = tuple(loop.tensors())
    along = _side(system, names, loop.axis, loop.reverse)
    across = _side(system, names, *inner.pop())
    found: set[tuple[str, int, int]] = set()
    for edge in dependences_among(system, names):
        found.add(_distance(system, edge, along, across))
    slope = 1
    for tensor, back, left in sorted(found):
        if not back and left < 0:
            raise NoMatch(f"`{tensor}` is read further along `{across.index}`, in the same step over `{along.index}`")
        if back:
            slope = max(slope, -((left - 1) // back))  # the least with slope * back + left >= 1
    lead = max(back for _, back, _ in found)
    before, after = max(0, *(left for *_, left in found)), max(0, *(-left for *_, left in found))
    if slope > STEEPEST:
        raise NoMatch(f"it reads ahead along `{across.index}`: fronts would need a slope of {slope}")
    if max(lead, before, after) > FURTHEST:
        raise NoMatch(f"it reads {max(lead, before, after)} cells away, and fronts reach up to {FURTHEST}")
    return Grid(names, along, across, slope, lead, before, after, frozenset(found))


def _side(system: System, names: tuple[str, ...], axis: str, reverse: bool) -> Side:
    """The index by which all tensors of a nest run over an axis."""
    found = {next((i for i in system.tensors[n].indices if system.axis(i) == axis), "") for n in names}
    if len(found) > 1:
        raise NoMatch(f"its tensors do not all run over `{axis}` by the same index")
    (index,) = found
    return Side(index, reverse, axis == system.stream and not reverse)


def _distance(system: System, edge: Dependence, along: Side, across: Side) -> tuple[str, int, int]:
    steps = []
    for side in (along, across):
        gap = edge.along(system.axis(side.index))
        if not isinstance(gap, int):
            raise NoMatch(f"`{edge.reader}` reads `{edge.read!r}`, at no fixed distance along `{side.index}`")
        steps.append(-gap if side.reverse else gap)
    return edge.tensor, steps[0], steps[1]
