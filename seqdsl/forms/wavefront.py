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

from dataclasses import replace

from seqdsl.forms.grid import Grid, geometry
from seqdsl.forms.grid_halo import halos, unused
from seqdsl.forms.grid_parts import Parts
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.ops import make
from seqdsl.ir.system import Index, System, Tensor


def to_wavefront(system: System, loop: Loop) -> System:
    """Write a nest of two loops as a recurrence over its fronts. Raises `NoMatch` with the reason."""
    grid = geometry(system, loop)
    first = grid.names[0]
    grid = replace(grid, front=unused(system, f"{first}.w"), cell=unused(system, f"{first}.{grid.along.index}"))
    rows, columns, steep = build.size(grid.along.index), build.size(grid.across.index), build.const(grid.slope)
    more = build.const(grid.slope * (grid.lead - 1) + grid.before + grid.after)
    fronts = build.add(build.add(build.mul(steep, rows), columns), more)
    sizes = {grid.front: fronts, grid.cell: build.add(rows, build.const(grid.lead))}
    system = system.with_indices(*(Index(n, n, size) for n, size in sizes.items()))
    parts = Parts(system, grid.names, frozenset((grid.along.index, grid.across.index)), grid.here())
    changed: list[Tensor] = []
    for name in grid.names:
        tensor = system.tensors[name]
        halo = build.zero(tensor.dtype)
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
        back, left = (side.back(at[side.index]) for side in (grid.along, grid.across))
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
