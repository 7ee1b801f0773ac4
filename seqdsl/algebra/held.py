"""Held states: a recurrence that reads itself where its mini-batch began, `W[t // m * m - 1]`, one step at a time.

The value at the boundary is a state of its own, which is replaced at the first position of each mini-batch:

    W.held[t] = where(t % m == 0, W[t-1], W.held[t-1])    is    W[t // m * m - 1]    by induction over t,

and so the recurrence is one of two states that read one step back, a small block of zeros and ones for each entry
(DERIVATIONS 2.6). What the state record keeps of the boundary is the held state before the first position.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import NoMatch
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, loop_of
from seqdsl.ir.node import Node, reads, rebuild, walk
from seqdsl.ir.state import before_block
from seqdsl.ir.system import Edge, System, Tensor, edge_at_start


def held_name(tensor: str) -> str:
    """What the held state of a tensor is called."""
    return f"{tensor}.held"


def has_boundaries(system: System, loop: Loop) -> bool:
    """Does a tensor of the loop read another at the boundary of its mini-batch?"""
    return bool(_boundaries(system, loop))


def with_held(system: System, loop: Loop) -> tuple[System, Loop]:
    """The system with a held state for each tensor that is read at a boundary, and its loop. Raises `NoMatch`."""
    members = dict(loop.positions)
    found: dict[str, Node] = {}
    for read in _boundaries(system, loop):
        name = str(read.attr)
        subscript = read.args[members[name]]
        if found.setdefault(name, subscript) is not subscript:
            raise NoMatch(f"`{name}` is read at two kinds of boundaries")
    tensors = []
    for name in members:
        tensor = system.tensors[name]
        assert tensor.rhs is not None
        tensors.append(replace(tensor, rhs=rebuild(tensor.rhs, lambda n: _held_read(n, found, members))))
    for name, subscript in found.items():
        tensors += _held(system, system.tensors[name], members[name], subscript)
    system = system.with_tensors(*tensors)
    return system, loop_of(system, next(iter(members)))


def _boundaries(system: System, loop: Loop) -> list[Node]:
    """Reads at `t // m * m - 1`, t the stream's index, and of the reader."""
    if loop.reverse or loop.axis != system.stream or any(not isinstance(s, Compute) for s in loop.body):
        return []
    members, found = dict(loop.positions), []
    for name in members:
        rhs = system.tensors[name].rhs
        for read in reads(rhs) if rhs is not None else ():
            if read.attr in members and before_block(loop.axis, read.args[members[str(read.attr)]]) == 1:
                found.append(read)
    return found


def _held_read(node: Node, found: dict[str, Node], members: dict[str, int]) -> Node | None:
    if node.op != "read" or node.attr not in found:
        return None
    position, subscript = members[str(node.attr)], found[str(node.attr)]
    if node.args[position] is not subscript:
        return None
    at = [block_of(subscript).args[0] if k == position else a for k, a in enumerate(node.args)]
    return build.read(held_name(str(node.attr)), at, node.dtype)


def block_of(subscript: Node) -> Node:
    """The `t // m` of `t // m * m - 1`: the last quotient, as m stands below it, whatever m is."""
    return [n for n in walk(subscript) if n.op == "floor_div"][-1]


def begins(subscript: Node, position: Node) -> Node:
    """Is the position the first of a mini-batch, whose boundary the subscript is?"""
    return build.make("eq", build.make("mod", position, block_of(subscript).args[1]), build.ZERO)


def _held(system: System, tensor: Tensor, position: int, subscript: Node) -> list[Tensor]:
    """The held state, and what it holds before the first position."""
    block = block_of(subscript)
    name, here = held_name(tensor.name), block.args[0]
    rest = tuple(i for k, i in enumerate(tensor.indices) if k != position)
    kept = [e for e in system.record or () if e.tensor == tensor.name and e.boundary is not None]
    if system.record is not None and (len(kept) != 1 or kept[0].boundary is not subscript):
        raise NoMatch(f"`{tensor.name}` is not kept at one boundary")
    before: list[Node] = [build.index(i) for i in tensor.indices]
    before[position] = build.sub(here, build.ONE)
    first = begins(subscript, here)
    rhs = build.where(first, build.read(tensor.name, before, tensor.dtype), build.read(name, before, tensor.dtype))
    kind, path = ("carry", (kept[0].name,)) if kept else ("derived", ())
    value = build.ZERO  # before the first mini-batch of all stands the base case
    if (base := edge_at_start(tensor, position)) is not None:
        value = build.read(base.tensor, [build.index(i) for i in rest], system.tensors[base.tensor].dtype)
        value = build.at_least_real(value) if tensor.dtype in ("real", "complex") else value
    start = Tensor(
        f"{name}@start",
        rest,
        tensor.dtype,
        kind,
        value,
        path=path,
        comment=f"{tensor.name} where the mini-batch of the first position began",
    )
    edge = Edge(position, build.const(-1), start.name)
    comment = f"{tensor.name} where the mini-batch began"
    return [start, Tensor(name, tensor.indices, tensor.dtype, "derived", rhs, edges=(edge,), comment=comment)]
