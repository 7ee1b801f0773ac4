"""Recurrences over two axes, front by front: every cell of an anti-diagonal at once.

A nest of two loops, over i and then over j, whose reads of itself lie (d, e) cells before is stepped in |i| |j| steps.
With the time w = slope * i + j, where the slope makes every read earlier, slope * d + e >= 1 (Lamport 1974, the
hyperplane method), it is a recurrence over w alone, in slope * |i| + |j| steps, with all cells i in parallel. Reads of
(i-1, j), (i, j-1), (i-1, j-1), and of further ones, need the slope 1; a read of (i-1, j+1) needs 2.

That is a change of variables, and the system says it with ordinary equations. A state y becomes

    y.front[w, i] = where(the cell (i, w - slope i) is on the grid, front(f), halo)        y[i, j] = y.front[slope i + j, i]

where f is the step with its reads moved along, so interpreter, validator and text read it as any other recurrence. Cells
just outside of the grid belong to the fronts as well, as many as the reads reach (`lead` of them before the first i,
`before` the first j, `after` the last j): their values, the halo, are base cases, what a state record holds, or 0, and so
no read of a front needs a case of its own. `front` is the identity; its options repeat the geometry for a backend, which
may evaluate the cells on the grid alone. Axes may run downwards, each on its own: four directions are one form.

What f is computed from besides the states, it reads from tensors over the grid: parts that are no wider than their
operands become equations of their own, and are computed at all cells at once.

The state record stays that of the stream: y is there as a whole, so its last row (or column) is read off as before.

Refused, with the reason: reads at no fixed distance, nests of three loops, distances that no slope below 9 puts in order,
base cases along further axes. Entry point: `to_wavefront`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NotAffine
from seqdsl.forms.grid_halo import halos, unused
from seqdsl.forms.grid_parts import Parts
from seqdsl.ir import build
from seqdsl.ir.dependence import Dependence, Loop, dependence_graph
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.ops import make
from seqdsl.ir.system import Index, System, Tensor

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


def to_wavefront(system: System, loop: Loop) -> System:
    """Write a nest of two loops as a recurrence over its fronts. Raises `NotAffine` with the reason."""
    grid = geometry(system, loop)
    first = grid.names[0]
    grid = replace(grid, front=unused(system, f"{first}.w"), cell=unused(system, f"{first}.{grid.along.index}"))
    rows, columns, steep = build.size(grid.along.index), build.size(grid.across.index), build.const(grid.slope)
    more = build.const(grid.slope * (grid.lead - 1) + grid.before + grid.after)
    fronts = build.add(build.add(build.mul(steep, rows), columns), more)
    sizes = {grid.front: fronts, grid.cell: build.add(rows, build.const(grid.lead))}
    system = replace(system, indices={**system.indices, **{n: Index(n, n, size) for n, size in sizes.items()}})
    parts = Parts(system, grid.names, frozenset((grid.along.index, grid.across.index)), grid.here())
    changed: list[Tensor] = []
    for name in grid.names:
        tensor = system.tensors[name]
        halo = build.FALSE if tensor.dtype == "bool" else build.ZERO
        if any(read[0] == name and read[1:] != (0, 0) for read in grid.reads):
            system, halo = halos(system, grid, tensor)
        changed += _front(system, grid, tensor, parts, halo)
    return system.with_tensors(*parts.made.values(), *changed)


def _front(system: System, grid: Grid, tensor: Tensor, parts: Parts, halo: Node) -> list[Tensor]:
    """A tensor's fronts, and the tensor, read off them."""
    assert tensor.rhs is not None
    members = {n: system.tensors[n] for n in grid.names}

    def moved(node: Node) -> Node | None:
        if node.op != "read" or node.attr not in members:
            return None
        own = members[str(node.attr)]
        at = dict(zip(own.indices, node.args, strict=True))
        back, left = (_back(side, at[side.index]) for side in (grid.along, grid.across))
        front = build.sub(build.index(grid.front), build.const(grid.slope * back + left))
        cell = build.sub(build.index(grid.cell), build.const(back))
        return build.read(f"{own.name}.front", [front, cell, *(at[i] for i in grid.lanes(own))], own.dtype)

    settings = (
        ("along", grid.along.index), ("across", grid.across.index), ("slope", grid.slope), ("lead", grid.lead),
        ("before", grid.before), ("after", grid.after), ("up", grid.along.reverse), ("left", grid.across.reverse),
    )  # fmt: skip
    step = make("front", rebuild(parts.taken_out(tensor), moved), attr=settings)
    indices = (grid.front, grid.cell, *grid.lanes(tensor))
    front = Tensor(
        f"{tensor.name}.front", indices, tensor.dtype, "derived", build.where(grid.inside(), step, halo),
        comment=tensor.comment,
    )  # fmt: skip
    place = [*grid.there(), *(build.index(i) for i in grid.lanes(tensor))]
    return [front, replace(tensor, rhs=build.read(front.name, place, tensor.dtype), comment="")]


def _back(side: Side, subscript: Node) -> int:
    """How many steps before the current one a subscript reads, which is known to be a fixed number."""
    from seqdsl.ir.order import difference

    gap = int(difference(build.index(side.index), subscript).get(None, build.Fraction(0)))
    return -gap if side.reverse else gap


def geometry(system: System, loop: Loop) -> Grid:
    """The two axes of a nest, the slope of its fronts, and how far it reads. Raises `NotAffine` with the reason."""
    inner = set(_loops(loop))
    if not inner:
        raise NotAffine(f"= it runs over `{loop.axis}` alone, and has no fronts")
    if len(inner) > 1:
        axes = ", ".join(f"`{axis}`" for axis in dict.fromkeys([loop.axis, *sorted(axis for axis, _ in inner)]))
        raise NotAffine(f"it takes more than two loops, over {axes}")
    names = tuple(loop.tensors())
    along = _side(system, names, loop.axis, loop.reverse)
    across = _side(system, names, *inner.pop())
    found: set[tuple[str, int, int]] = set()
    for _, _, data in dependence_graph(system).subgraph(names).edges(data=True):
        found.add(_distance(system, data["dependence"], along, across))
    slope = 1
    for name, back, left in found:
        if back:
            slope = max(slope, -((left - 1) // back))  # the least with slope * back + left >= 1
    lead = max(back for _, back, _ in found)
    before, after = max(0, *(left for *_, left in found)), max(0, *(-left for *_, left in found))
    if slope > STEEPEST:
        raise NotAffine(f"it reads ahead along `{across.index}`: fronts would need a slope of {slope}")
    if max(lead, before, after) > FURTHEST:
        raise NotAffine(f"it reads {max(lead, before, after)} cells away, and fronts reach up to {FURTHEST}")
    return Grid(names, along, across, slope, lead, before, after, frozenset(found))


def _loops(loop: Loop) -> Iterator[tuple[str, bool]]:
    for step in loop.body:
        if isinstance(step, Loop):
            yield step.axis, step.reverse
            yield from _loops(step)


def _side(system: System, names: tuple[str, ...], axis: str, reverse: bool) -> Side:
    """The index by which all tensors of a nest run over an axis."""
    found = {next((i for i in system.tensors[n].indices if system.axis(i) == axis), "") for n in names}
    if len(found) > 1:
        raise NotAffine(f"its tensors do not all run over `{axis}` by the same index")
    (index,) = found
    return Side(index, reverse, axis == system.stream and not reverse)


def _distance(system: System, edge: Dependence, along: Side, across: Side) -> tuple[str, int, int]:
    steps = []
    for side in (along, across):
        gap = edge.along(system.axis(side.index))
        if not isinstance(gap, int):
            raise NotAffine(f"`{edge.reader}` reads `{edge.read!r}`, at no fixed distance along `{side.index}`")
        steps.append(-gap if side.reverse else gap)
    return edge.tensor, steps[0], steps[1]
