"""The cells just outside of a grid that its steps read: base cases, what a state record holds, or 0.

`y.top[k, x]` holds the cells before the first row (row k - lead, column x - before), `y.left[i, x]` those before the
first column of a row, `y.right[i, x]` those after the last. Each is there only where it is not 0 throughout.

Along the stream, the cells before come from the state record where one is given. A corner, outside along both axes, is
what the first base case that names it says; with a state, the row before is no longer outside, and the base case of the
column says it. Entry point: `halos`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from seqdsl.algebra.affine import NotAffine
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.order import difference
from seqdsl.ir.system import Index, System, Tensor

if TYPE_CHECKING:
    from seqdsl.forms.wavefront import Grid, Side


def halos(system: System, grid: Grid, tensor: Tensor) -> tuple[System, Node]:
    """The system with the halo's tensors, and the value of a front's cell that is not on the grid."""
    _check(system, grid, tensor)
    cell, column = build.index(grid.cell), grid.column()
    lanes = [build.index(i) for i in grid.lanes(tensor)]
    row = grid.here()[grid.along.index]
    system, top = _top(system, grid, tensor)
    system, left = _beside(system, grid, tensor, end=False)
    system, right = _beside(system, grid, tensor, end=True)
    value = zero = _zero(tensor)
    if right is not None:
        past = build.sub(column, build.add(grid.across.length(), build.const(grid.before)))
        value = build.read(right.name, [row, past, *lanes], right.dtype)
    if left is not None:
        inside = build.read(left.name, [row, column, *lanes], left.dtype)
        value = build.where(make("lt", column, build.const(grid.before)), inside, value)
    first = build.read(top.name, [cell, column, *lanes], top.dtype) if top is not None else zero
    if value is not first:
        value = build.where(make("lt", cell, build.const(grid.lead)), first, value)
    return system, value


def unused(system: System, wanted: str) -> str:
    """A name for an index that nothing else has."""
    while wanted in system.indices:
        wanted += "_"
    return wanted


def _check(system: System, grid: Grid, tensor: Tensor) -> None:
    own = {tensor.indices.index(s.index) for s in (grid.along, grid.across)}
    for edge in tensor.edges:
        if edge.position not in own:
            raise NotAffine(f"`{tensor.name}` has a base case along `{tensor.indices[edge.position]}` as well")


def _zero(tensor: Tensor) -> Node:
    return build.FALSE if tensor.dtype == "bool" else build.ZERO


def _edge(system: System, tensor: Tensor, side: Side, point: Node) -> Node:
    """The base case of a tensor at a point outside along one axis, over its other indices; else 0."""
    position = tensor.indices.index(side.index)
    for edge in tensor.edges:
        if edge.position == position and not difference(edge.point, point):
            rest = [build.index(i) for k, i in enumerate(tensor.indices) if k != position]
            return build.read(edge.tensor, rest, system.tensors[edge.tensor].dtype)
    return _zero(tensor)


def _history(system: System, tensor: Tensor, side: Side, defaults: list[Node]) -> tuple[System, list[Node]]:
    """The values 1, 2, .. steps before the first along an axis, over the other indices: from the state where one is
    given, else the defaults."""
    entries = [e for e in system.record or () if e.tensor == tensor.name] if side.streamed else []
    if not entries or not defaults:
        return system, defaults
    (entry, *more) = entries
    kept = build.value_of(entry.tail) if entry.tail is not None else None
    if more or kept is None or kept < len(defaults) or entry.boundary is not None:
        raise NotAffine(f"`{tensor.name}` is kept for more than its last steps")
    position, name = tensor.indices.index(side.index), f"{tensor.name}@start"
    rest = [i for k, i in enumerate(tensor.indices) if k != position]
    default, indices, places = defaults[0], tuple(rest), [build.ZERO]
    if kept > 1:
        window = unused(system, f"{tensor.name}.past")
        system = replace(system, indices={**system.indices, window: Index(window, window, build.const(int(kept)))})
        indices = tuple(window if k == position else i for k, i in enumerate(tensor.indices))
        places = [build.const(int(kept) - 1 - k) for k in range(len(defaults))]
        default = _zero(tensor)
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
    """The cells before the first column, or after the last: first to last."""
    count = _reach(grid, tensor)[2 if end else 1]
    values = [_edge(system, tensor, grid.across, grid.across.beyond(k, end=end)) for k in range(1, count + 1)]
    if not end:
        system, values = _history(system, tensor, grid.across, values)
    if all(v is _zero(tensor) for v in values):
        return system, None
    index = unused(system, f"{tensor.name}.beside")
    whole, width = _zero(tensor), grid.after if end else grid.before
    for k, value in enumerate(values):
        at = build.const(k if end else width - 1 - k)
        whole = build.where(make("eq", build.index(index), at), value, whole) if width > 1 else value
    system = replace(system, indices={**system.indices, index: Index(index, index, build.const(width))})
    indices = (grid.along.index, index, *grid.lanes(tensor))
    name = f"{tensor.name}.{'right' if end else 'left'}"
    made = Tensor(name, indices, tensor.dtype, "derived", whole)
    return system.with_tensors(made), made


def _top(system: System, grid: Grid, tensor: Tensor) -> tuple[System, Tensor | None]:
    """The rows before the first, the corners with them."""
    side, across = grid.along, grid.across
    row, column = (unused(system, f"{tensor.name}.{name}") for name in ("above", "column"))
    values = [_edge(system, tensor, side, side.beyond(k)) for k in range(1, _reach(grid, tensor)[0] + 1)]
    system, values = _history(system, tensor, side, values)
    system, corners = _corners(system, grid, tensor)
    if all(v is _zero(tensor) for v in (*values, *corners.values())):
        return system, None
    place = across.place(build.sub(build.index(column), build.const(grid.before)))
    whole = _zero(tensor)
    for k, value in enumerate(values, 1):
        value = build.substitute(value, {across.index: place})
        for (lag, m), corner in corners.items():
            if lag == k and corner is not _zero(tensor):
                last = build.add(across.length(), build.const(grid.before - 1))
                x = build.add(last, build.const(-m)) if m < 0 else build.const(grid.before - m)
                value = build.where(make("eq", build.index(column), x), corner, value)
        at = build.const(grid.lead - k)
        whole = build.where(make("eq", build.index(row), at), value, whole) if grid.lead > 1 else value
    width = build.add(build.size(across.index), build.const(grid.before + grid.after))
    sizes = {row: build.const(grid.lead), column: width}
    system = replace(system, indices={**system.indices, **{n: Index(n, n, s) for n, s in sizes.items()}})
    made = Tensor(f"{tensor.name}.top", (row, column, *grid.lanes(tensor)), tensor.dtype, "derived", whole)
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
    found = {(k, m): _corner(system, grid, tensor, rows[k], columns[m]) for k in rows for m in columns}
    for side, other, lags, points in ((along, across, rows, columns), (across, along, columns, rows)):
        if side.streamed and any(e.tensor == tensor.name for e in system.record or ()):
            for place, point in points.items():
                keys = [(lag, place) if side is along else (place, lag) for lag in lags]
                system, values = _after_a_state(system, tensor, side, other, point, [found[key] for key in keys])
                found |= dict(zip(keys, values, strict=True))
    return system, found


def _corner(system: System, grid: Grid, tensor: Tensor, row: Node, column: Node) -> Node:
    """The first base case that names the row or the column, read at the other one: 0, unless it has one of its own."""
    points = {grid.along.index: row, grid.across.index: column}
    for edge in tensor.edges:
        if not difference(edge.point, points[tensor.indices[edge.position]]):
            if not system.tensors[edge.tensor].edges:
                return _zero(tensor)
            rest = [points.get(i, build.index(i)) for k, i in enumerate(tensor.indices) if k != edge.position]
            return build.read(edge.tensor, rest, system.tensors[edge.tensor].dtype)
    return _zero(tensor)


def _after_a_state(
    system: System, tensor: Tensor, side: Side, other: Side, point: Node, values: list[Node]
) -> tuple[System, list[Node]]:
    """The corners where a state may be given: along the stream they are then not outside, and the other axis's base
    case counts, at earlier positions."""
    position = tensor.indices.index(other.index)
    edge = next((e for e in tensor.edges if e.position == position and not difference(e.point, point)), None)
    if edge is not None and any(e.tensor == edge.tensor for e in system.record or ()):
        return _history(system, system.tensors[edge.tensor], side, values)
    if edge is not None or any(v is not _zero(tensor) for v in values):
        raise NotAffine(f"a corner of the base cases of `{tensor.name}` is not what a state would say of it")
    return system, values
