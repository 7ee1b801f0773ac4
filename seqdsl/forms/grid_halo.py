"""The cells just outside of a grid that its steps read: base cases, what a state record holds, or 0.

`y.top[k, j]` holds the cells before the first row (row k - lead), `y.left[i, x]` those before the first column of a row,
`y.right[i, x]` those after the last, and `y.corner[k, x]` those that are outside along both axes, the ones before the
first column first. Each is there only where it is not 0 throughout.

Along the stream, the cells before come from the state record where one is given. A corner, outside along both axes, is
what the first base case that names it says; with a state, the row before is no longer outside, and the base case of the
column says it. Entry point: `halos`.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqdsl.algebra.affine import NoMatch
from seqdsl.forms.grid import Grid, Side
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.order import difference
from seqdsl.ir.system import Index, System, Tensor

Places = dict[tuple[int, ...], Node]
_SIDES = {
    "top": "before the first row",
    "corner": "before the first row, beside the columns",
    "left": "before the first column",
    "right": "after the last column",
}


def halos(system: System, grid: Grid, tensor: Tensor) -> tuple[System, Node]:
    """The system with the halo's tensors, and the value of a front's cell that is not on the grid."""
    no_other_edges(tensor, grid)
    cell, column = build.index(grid.cell), grid.column()
    end = build.add(grid.across.length(), build.const(grid.before))
    lanes = [build.index(i) for i in grid.lanes(tensor)]
    here = grid.here()
    row, place, past = here[grid.along.index], here[grid.across.index], build.sub(column, end)
    system, top = _top(system, grid, tensor)
    system, corner = _corner(system, grid, tensor)
    system, left = _beside(system, grid, tensor, end=False)
    system, right = _beside(system, grid, tensor, end=True)

    def at(side: Tensor | None, *subscripts: Node) -> Node:
        return build.zero(tensor.dtype) if side is None else build.read(side.name, [*subscripts, *lanes], side.dtype)

    before, beyond = make("lt", column, build.const(grid.before)), make("le", end, column)
    far = at(corner, cell, build.add(past, build.const(grid.before)))
    above = _chosen(before, at(corner, cell, column), _chosen(beyond, far, at(top, cell, place)))
    beside = _chosen(before, at(left, row, column), at(right, row, past))
    return system, _chosen(make("lt", cell, build.const(grid.lead)), above, beside)


def before(system: System, tensor: Tensor, side: Side) -> tuple[System, Node]:
    """The values one step before the first along an axis, over a tensor's other indices."""
    system, (value,) = _history(system, tensor, side, [_edge(system, tensor, side, side.beyond(1))])
    return system, value


def _chosen(condition: Node, a: Node, b: Node) -> Node:
    return a if a is b else build.where(condition, a, b)


def unused(system: System, wanted: str) -> str:
    """A name for an index that nothing else has."""
    while wanted in system.indices:
        wanted += "_"
    return wanted


def no_other_edges(tensor: Tensor, grid: Grid) -> None:
    """Raises `NoMatch` where a tensor has base cases along other indices than the grid's."""
    own = {tensor.indices.index(s.index) for s in (grid.along, grid.across)}
    for edge in tensor.edges:
        if edge.position not in own:
            raise NoMatch(f"`{tensor.name}` has a base case along `{tensor.indices[edge.position]}` as well")


def _edge(system: System, tensor: Tensor, side: Side, point: Node) -> Node:
    """The base case of a tensor at a point outside along one axis, over its other indices; else 0."""
    position = tensor.indices.index(side.index)
    for edge in tensor.edges:
        if edge.position == position and not difference(edge.point, point):
            rest = [build.index(i) for k, i in enumerate(tensor.indices) if k != position]
            return build.read(edge.tensor, rest, system.tensors[edge.tensor].dtype)
    return build.zero(tensor.dtype)


def _history(system: System, tensor: Tensor, side: Side, defaults: list[Node]) -> tuple[System, list[Node]]:
    """The values 1, 2, .. steps before the first along an axis, over the other indices: from the state where one is
    given, else the defaults."""
    entries = [e for e in system.record or () if e.tensor == tensor.name] if side.streamed else []
    if not entries or not defaults:
        return system, defaults
    (entry, *more) = entries
    kept = build.value_of(entry.tail) if entry.tail is not None else None
    if more or kept is None or kept < len(defaults) or entry.boundary is not None:
        raise NoMatch(f"`{tensor.name}` is kept for more than its last steps")
    position, name = tensor.indices.index(side.index), f"{tensor.name}@start"
    rest = [i for k, i in enumerate(tensor.indices) if k != position]
    default, indices, places = defaults[0], tuple(rest), [build.ZERO]
    if kept > 1:
        window = unused(system, f"{tensor.name}.past")
        system = system.with_indices(Index(window, window, build.const(int(kept))))
        indices = tuple(window if k == position else i for k, i in enumerate(tensor.indices))
        places = [build.const(int(kept) - 1 - k) for k in range(len(defaults))]
        default = build.zero(tensor.dtype)
        for place, value in zip(places, defaults, strict=True):
            default = build.where(make("eq", build.index(window), place), value, default)
    carry = Tensor(
        name, indices, tensor.dtype, "carry", default, path=(entry.name,),
        comment=f"{tensor.name} before the first position",
    )  # fmt: skip
    found = []
    for place in places:
        at = [place if i not in rest else build.index(i) for i in indices]
        found.append(build.read(name, at, tensor.dtype))
    return system.with_tensors(carry), found


def _reach(grid: Grid, tensor: Tensor) -> tuple[int, int, int]:
    """How far a tensor is read: rows before, columns before, columns after."""
    own = [(back, left) for name, back, left in grid.reads if name == tensor.name]
    return max(back for back, _ in own), max(0, *(n for _, n in own)), max(0, *(-n for _, n in own))


def _beside(system: System, grid: Grid, tensor: Tensor, *, end: bool) -> tuple[System, Tensor | None]:
    """The cells before the first column, or after the last."""
    count = _reach(grid, tensor)[2 if end else 1]
    values = [_edge(system, tensor, grid.across, grid.across.beyond(k, end=end)) for k in range(1, count + 1)]
    if not end:
        system, values = _history(system, tensor, grid.across, values)
    width = grid.after if end else grid.before
    places: Places = {(k if end else width - 1 - k,): value for k, value in enumerate(values)}
    name = "right" if end else "left"
    return _listed(system, grid, tensor, name, {"beside": width}, places, (grid.along.index,))


def _top(system: System, grid: Grid, tensor: Tensor) -> tuple[System, Tensor | None]:
    """The rows before the first."""
    side = grid.along
    values = [_edge(system, tensor, side, side.beyond(k)) for k in range(1, _reach(grid, tensor)[0] + 1)]
    system, values = _history(system, tensor, side, values)
    places: Places = {(grid.lead - k,): value for k, value in enumerate(values, 1)}
    return _listed(system, grid, tensor, "top", {"above": grid.lead}, places, (grid.across.index,))


def _corner(system: System, grid: Grid, tensor: Tensor) -> tuple[System, Tensor | None]:
    """The cells outside along both axes."""
    system, corners = _corners(system, grid, tensor)
    places: Places = {
        (grid.lead - k, grid.before - m if m > 0 else grid.before - 1 - m): v for (k, m), v in corners.items()
    }
    sizes = {"above": grid.lead, "beside": grid.before + grid.after}
    return _listed(system, grid, tensor, "corner", sizes, places, ())


def _listed(
    system: System,
    grid: Grid,
    tensor: Tensor,
    name: str,
    sizes: Mapping[str, int],
    places: Places,
    own: tuple[str, ...],
) -> tuple[System, Tensor | None]:
    """A tensor that is each value at its place along indices of fixed sizes, and 0 elsewhere; None if it is 0 throughout.
    `own` are the indices of the grid that the values vary along."""
    whole = build.zero(tensor.dtype)
    indices = {unused(system, f"{tensor.name}.{name}_{index}"): size for index, size in sizes.items()}
    for place, value in places.items():
        at = build.TRUE
        for (index, size), position in zip(indices.items(), place, strict=True):
            at = build.both(at, make("eq", build.index(index), build.const(position)) if size > 1 else build.TRUE)
        whole = _chosen(at, value, whole)
    if whole is build.zero(tensor.dtype):
        return system, None
    system = system.with_indices(*(Index(i, i, build.const(n)) for i, n in indices.items()))
    order = (*indices, *own) if name == "top" else (*own, *indices)
    own_name = f"{tensor.name}.{name}"
    comment = f"{tensor.name}, {_SIDES[name]}"
    made = Tensor(own_name, (*order, *grid.lanes(tensor)), tensor.dtype, "derived", whole, comment=comment)
    return system.with_tensors(made), made


def _corners(system: System, grid: Grid, tensor: Tensor) -> tuple[System, dict[tuple[int, int], Node]]:
    """(rows before the first, columns before the first or, negative, after the last) -> value, where a read meets it."""
    if not any(name == tensor.name and back and left for name, back, left in grid.reads):
        return system, {}
    along, across = grid.along, grid.across
    back, before, after = _reach(grid, tensor)
    rows = {k: along.beyond(k) for k in range(1, back + 1)}
    columns = {m: across.beyond(m) for m in range(1, before + 1)}
    columns |= {-m: across.beyond(m, end=True) for m in range(1, after + 1)}
    found = {(k, m): _named(system, grid, tensor, rows[k], columns[m]) for k in rows for m in columns}
    for side, other, lags, points in ((along, across, rows, columns), (across, along, columns, rows)):
        if side.streamed and any(e.tensor == tensor.name for e in system.record or ()):
            for place, point in points.items():
                keys = [(lag, place) if side is along else (place, lag) for lag in lags]
                system, values = _after_a_state(system, tensor, side, other, point, [found[key] for key in keys])
                found |= dict(zip(keys, values, strict=True))
    return system, found


def _named(system: System, grid: Grid, tensor: Tensor, row: Node, column: Node) -> Node:
    """The first base case that names the row or the column, read at the other one: 0, unless it has one of its own."""
    points = {grid.along.index: row, grid.across.index: column}
    for edge in tensor.edges:
        if not difference(edge.point, points[tensor.indices[edge.position]]):
            if not system.tensors[edge.tensor].edges:
                return build.zero(tensor.dtype)
            rest = [points.get(i, build.index(i)) for k, i in enumerate(tensor.indices) if k != edge.position]
            return build.read(edge.tensor, rest, system.tensors[edge.tensor].dtype)
    return build.zero(tensor.dtype)


def _after_a_state(
    system: System, tensor: Tensor, side: Side, other: Side, point: Node, values: list[Node]
) -> tuple[System, list[Node]]:
    """The corners where a state may be given: along the stream they are then not outside, and the other axis's base
    case counts, at earlier positions."""
    position = tensor.indices.index(other.index)
    edge = next((e for e in tensor.edges if e.position == position and not difference(e.point, point)), None)
    if edge is not None and any(e.tensor == edge.tensor for e in system.record or ()):
        return _history(system, system.tensors[edge.tensor], side, values)
    if edge is not None or any(v is not build.zero(tensor.dtype) for v in values):
        raise NoMatch(f"a corner of the base cases of `{tensor.name}` is not what a state would say of it")
    return system, values
