"""Lags: a recurrence that reads itself several steps back, as one that reads one step back, with companion states.

`y[t] = a y[t-1] + b y[t-2] + x` is, with `y.lag1[t] = y[t-1]`, the recurrence `y[t] = a y[t-1] + b y.lag1[t-1] + x` of the
two states (y, y.lag1), a small block for each entry. The companions add no equation that was not there: each is a name
for an earlier value, so the two systems have the same y by induction over t.

A companion starts from the value that its name says: from the state record, which holds the last values of y, or from
the base cases. `y@past` is that window, the last value last.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from seqdsl.algebra.affine import NoMatch
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, loop_of
from seqdsl.ir.node import Node, reads, rebuild
from seqdsl.ir.order import difference
from seqdsl.ir.system import Edge, Index, System, Tensor

LONGEST = 8  # steps: the block has as many rows


def lag_name(tensor: str, back: int) -> str:
    """What the companion is called that is the tensor so many steps back, itself where that is none."""
    return f"{tensor}.lag{back}" if back else tensor


def has_lags(system: System, loop: Loop) -> bool:
    """Does a tensor of the loop read another several steps back, and all of them a fixed number of steps?"""
    found = _lags(system, loop)
    return found is not None and any(n > 1 for n in found.values())


def with_companions(system: System, loop: Loop) -> tuple[System, Loop]:
    """The system with a companion for each step further back than one, and its loop. Raises `NoMatch`."""
    system, lags = in_single_steps(system, loop)
    members = dict(loop.positions)
    for name, count in lags.items():
        if count > 1:
            system, past = _past(system, loop, name, members[name], count)
            system = system.with_tensors(*_started(system, loop, system.tensors[name], members[name], count, past))
    return system, loop_of(system, next(iter(members)))


def in_single_steps(system: System, loop: Loop) -> tuple[System, dict[str, int]]:
    """The system with companions that have no start yet, and how far back each tensor is read. Raises `NoMatch`."""
    lags = _lags(system, loop)
    if lags is None:
        raise NoMatch("the recurrence reads itself at no fixed number of steps")
    for name, count in lags.items():
        if count > LONGEST:
            raise NoMatch(f"`{name}` is read {count} steps back: a block of {count} rows for each entry is too large")
    members = dict(loop.positions)
    found: list[Tensor] = []
    for name, position in members.items():
        tensor = system.tensors[name]
        assert tensor.rhs is not None
        found.append(replace(tensor, rhs=rebuild(tensor.rhs, lambda n: _one_step(system, loop, n))))
        found += _companions(loop, tensor, position, lags[name])
    return system.with_tensors(*found), lags


def _lags(system: System, loop: Loop) -> dict[str, int] | None:
    """How far back each tensor is read inside the loop; None where a read is no fixed number of steps away."""
    members, far = dict(loop.positions), dict.fromkeys(loop.tensors(), 0)
    if any(not isinstance(s, Compute) for s in loop.body):
        return None
    for name, mine in members.items():
        rhs = system.tensors[name].rhs
        assert rhs is not None
        here = build.index(system.tensors[name].indices[mine])
        for read in reads(rhs):
            if read.attr in members:
                gap = difference(here, read.args[members[str(read.attr)]])
                if not set(gap) <= {None}:
                    return None
                back = int(gap.get(None, Fraction(0))) * (-1 if loop.reverse else 1)
                far[str(read.attr)] = max(far[str(read.attr)], back)
    return far


def _one_step(system: System, loop: Loop, node: Node) -> Node | None:
    """y[t-3] -> y.lag2[t-1]"""
    members = dict(loop.positions)
    if node.op != "read" or node.attr not in members:
        return None
    position = members[str(node.attr)]
    form = {t: c for t, c in difference(node.args[position], build.ZERO).items() if t is None}
    back = int(-form.get(None, Fraction(0))) * (-1 if loop.reverse else 1)
    if back < 2:
        return None
    at = list(node.args)
    at[position] = _stepped(at[position], back - 1, loop)
    return build.read(lag_name(str(node.attr), back - 1), at, node.dtype)


def _stepped(subscript: Node, count: int, loop: Loop) -> Node:
    """`count` steps further in the loop's direction."""
    return build.add(subscript, build.const(-count if loop.reverse else count))


def _past(system: System, loop: Loop, name: str, position: int, count: int) -> tuple[System, Tensor]:
    """The values before the first position, as many as the state record keeps, or as are read."""
    tensor = system.tensors[name]
    kept = [e for e in system.record or () if e.tensor == name and e.boundary is None]
    streamed = system.axis(tensor.indices[position]) == system.stream and not loop.reverse
    length = count
    if streamed and kept:
        held = build.value_of(kept[0].tail) if kept[0].tail is not None else None
        if len(kept) > 1 or held is None or held < count:
            raise NoMatch(f"`{name}` is kept for more than its last steps")
        length = int(held)
    index = build.numbered(f"{name}.past", system.indices)
    system = system.with_indices(Index(index, index, build.const(length)))
    indices = tuple(index if k == position else i for k, i in enumerate(tensor.indices))
    value = build.ZERO
    for edge in tensor.edges:
        point = build.value_of(edge.point)
        if edge.position != position or point is None or loop.reverse:
            raise NoMatch(f"`{name}` has a base case that is not before its first steps")
        rest = [build.index(i) for k, i in enumerate(indices) if k != position]
        at = build.make("eq", build.index(index), build.const(int(point) + length))
        value = build.where(at, build.read(edge.tensor, rest, system.tensors[edge.tensor].dtype), value)
    if value is not build.ZERO and tensor.dtype in ("real", "complex"):
        value = build.at_least_real(value)
    kind, path = ("carry", (kept[0].name,)) if streamed and kept else ("derived", ())
    comment = f"{name} before the first position"
    past = Tensor(f"{name}@past", indices, tensor.dtype, kind, value, path=path, comment=comment)
    return system.with_tensors(past), past


def _companions(loop: Loop, tensor: Tensor, position: int, count: int) -> list[Tensor]:
    """y.lag1 .. y.lag(count - 1)"""
    found = []
    for back in range(1, count):
        at: list[Node] = [build.index(i) for i in tensor.indices]
        at[position] = _stepped(at[position], -1, loop)
        rhs = build.read(lag_name(tensor.name, back - 1), at, tensor.dtype)
        comment = f"{tensor.name}, {back} step{'s' * (back > 1)} back"
        found.append(Tensor(lag_name(tensor.name, back), tensor.indices, tensor.dtype, "derived", rhs, comment=comment))
    return found


def _started(system: System, loop: Loop, tensor: Tensor, position: int, count: int, past: Tensor) -> list[Tensor]:
    """The companions of y with their starts, which are read from the window."""
    length = build.value_of(system.indices[past.indices[position]].size or build.ZERO)
    assert length is not None
    found = []
    rest = tuple(i for k, i in enumerate(tensor.indices) if k != position)
    for back in range(1, count):
        name = lag_name(tensor.name, back)
        at: list[Node] = [build.index(i) for i in tensor.indices]
        at[position] = build.const(int(length) - 1 - back)
        start = Tensor(f"{name}@start", rest, tensor.dtype, "derived", build.read(past.name, at, tensor.dtype))
        point = build.size(tensor.indices[position]) if loop.reverse else build.const(-1)
        found += [start, replace(system.tensors[name], edges=(Edge(position, point, start.name),))]
    return found
