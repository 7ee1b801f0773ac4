"""Affine recurrences over two axes, block by block: two blocks of cells that lie beside each other are one, and so their
sides double until one block is the grid.

A state that reads its neighbours, y[i, j] = A y[i-1, j] + C y[i, j-1] + b, makes of every block of cells an affine map, of
the states that enter it from above and from the left to those that leave it below and to the right. Joining two blocks
is the composition of their maps along the edge that they share, and is associative; so every grouping has the same
states, and pairs of blocks give them in as many levels as the sides have binary digits, where fronts need rows + columns.

That is one operator, `grid_scan(A, C, b, top, left)`, of which the components (states that read each other, an axis along
which entries mix) are those of a matrix scan (`seqdsl.forms.dense`); `top` and `left` are what lies before the first row
and column. What does not vary along an axis of the state is shared along it: the maps are there once.

The maps over the edges of a block of n x n cells have n^2 entries, for each set of coefficients: 4 n for each of its
cells. A grid of n x m cells, m <= n, costs about 4 n m^2 products of coefficients beside 4 log2(n m) of each entry. So it
loses where coefficients have channels of their own, and where fronts are wide enough to keep a machine busy; it gains
where one axis is long and the other short, or launches cost more than arithmetic (`seqdsl.plan` has the model). Measured
on one core against fronts, forward, and with the backward pass: 4096 x 8 cells of one entry take 1/7 and 1/19 of the time,
2048 x 64 of them 0.9 and 0.6, 64 x 64 cells of 64 entries 1.4 and 1, and with coefficients for each entry 13 and 9.

Refused, with the reason: updates that are not affine, reads at other distances than one cell along one axis, entries that
mix along two axes, and what is no grid. Either axis may run downwards. Entry point: `to_hierarchical`.
"""

from __future__ import annotations

from seqdsl.algebra.affine import MOST_READS, NoMatch, Term, occurrences, split_update
from seqdsl.forms.dense import components_of, from_components, matrix_entry
from seqdsl.forms.grid import Grid, geometry
from seqdsl.forms.grid_halo import before, no_other_edges
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node, rebuild_reads
from seqdsl.ir.ops import make
from seqdsl.ir.system import System, Tensor


def to_hierarchical(system: System, loop: Loop) -> System:
    """Replace the states of a grid by one `grid_scan`. Raises `NoMatch` with the reason."""
    grid = geometry(system, loop)
    for name, back, left in sorted(grid.reads):
        if (back, left) not in ((0, 0), (1, 0), (0, 1)):
            raise NoMatch(f"`{name}` is read at the distance ({back}, {left}), and blocks hand on what is next to them")
    states = [system.tensors[n] for n in grid.names if any(r[0] == n and r[1:] != (0, 0) for r in grid.reads)]
    names = {s.name: number for number, s in enumerate(states)}
    if any(s.dtype not in ("real", "complex") for s in states):
        raise NoMatch("its states are not all real or complex numbers")
    split = []
    for state in states:
        no_other_edges(state, grid)
        step = _written_out(system, grid, state.name, {})
        if occurrences(step, frozenset(names)) > MOST_READS:
            raise NoMatch(f"`{state.name}` reads the states more than {MOST_READS} times once the step is written out")
        split.append(split_update(system, step, names))
    axes = (grid.along.index, grid.across.index)
    system, components = components_of(system, states, set(axes), [terms for terms, _ in split])
    matrices = []
    for which in ((1, 0), (0, 1)):
        rows = [[t for t in terms if _distance(grid, system, t) == which] for terms, _ in split]
        entries = [
            build.total(matrix_entry(state, names, components, t) for t in row) for state, row in zip(states, rows, strict=True)
        ]
        matrices.append(components.joined(entries))
    borders = []
    for side in (grid.along, grid.across):
        values = []
        for state in states:
            system, value = before(system, state, side)
            values.append(value)
        borders.append(components.joined(values))
    flags = (("up", grid.along.reverse), ("back", grid.across.reverse))
    attr = ((*axes, *components.kept), components.read, flags)
    scan = make("grid_scan", *matrices, components.joined([rest for _, rest in split]), *borders, attr=attr)
    return system.with_tensors(*from_components(states, axes[0], components, scan))


def _distance(grid: Grid, system: System, term: Term) -> tuple[int, int]:
    """How many cells before the current one a term reads its state."""
    at = dict(zip(system.tensors[str(term.read.attr)].indices, term.read.args, strict=True))
    return grid.along.back(at[grid.along.index]), grid.across.back(at[grid.across.index])


def _written_out(system: System, grid: Grid, name: str, done: dict[str, Node]) -> Node:
    """A tensor's step with the equations of the nest that it reads at its own cell written out."""
    if name not in done:
        members: dict[str, Tensor] = {n: system.tensors[n] for n in grid.names}

        def opened(node: Node) -> Node | None:
            own = members[str(node.attr)]
            at = dict(zip(own.indices, node.args, strict=True))
            if any(side.back(at[side.index]) for side in (grid.along, grid.across)):
                return None
            inner = _written_out(system, grid, own.name, done)
            if not build.can_substitute(inner, at):
                raise NoMatch(f"`{node!r}` cannot be written out in `{name}`")
            return build.substitute(inner, at)

        rhs = members[name].rhs
        assert rhs is not None
        done[name] = rebuild_reads(rhs, members, opened)
    return done[name]
