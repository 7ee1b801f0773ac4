"""Which recurrences over the stream become functions of their own, with the adjoint that is derived for them.

Those whose step reads a fixed, small number of steps back, and knows where it stands by nothing else: neither by its own
position nor, in the steps of a loop over another axis, by that loop's. Entry points: `states_of`, `set_apart`.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.lags import LONGEST
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, Step
from seqdsl.ir.node import Node, read_names, walk
from seqdsl.ir.node import reads as reads_below
from seqdsl.ir.ops import OPS
from seqdsl.ir.order import difference
from seqdsl.ir.system import System, Tensor, index_names, sources

from .context import Context, Stored
from .loops import sink
from .table import MARKED, ONLINE

SMOOTH = ("real", "complex")


def set_apart(ctx: Context, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The schedule, with what reads the states of a loop inside others moved into it; `ctx.functions` then has those loops."""
    found: list[Step] = []
    for step in steps:
        if isinstance(step, Loop) and step.axis != ctx.system.stream and not _marked(ctx.system, step):
            held = {ctx.system.tensors[n].indices[p]: step.axis for n, p in step.positions}
            with ctx.at(held):
                body = sink(ctx.system, step.body)
                if not all(states_of(ctx, s) for s in body if isinstance(s, Loop)):
                    body = step.body
                known = {s: states_of(ctx, s) for s in body if isinstance(s, Loop)}
                ctx.functions |= {s: states for s, states in known.items() if states}
                step = replace(step, body=set_apart(ctx, body))
        found.append(step)
    return tuple(found)


def read_outside(ctx: Context, loop: Loop) -> frozenset[str]:
    """The tensors of a loop inside others of which more is read than by its own step, or the last value."""
    inside, system = set(loop.tensors()), ctx.system
    found = {*system.outputs, *system.finals.values()}
    for tensor in system.derived():
        if tensor.name not in inside:
            found |= sources(system, tensor)
        elif tensor.rhs is not None:
            found |= {str(r.attr) for r in reads_below(tensor.rhs) if not ctx.is_here(r)}
    found |= {r.tensor for r in ctx.records.values() if r.tail is not build.ONE or r.tensor not in ctx.functions[loop]}
    return frozenset(found & inside)


def states_of(ctx: Context, loop: Loop) -> list[str]:
    """The tensors that a step reads from the ones before; none where the loop has no adjoint that is one loop as well."""
    positions = dict(loop.positions)
    tensors = [ctx.system.tensors[n] for n in positions]
    records = [r for n in positions for r in (ctx.records.get(n), ctx.records.get(f"{n}@boundary")) if r is not None]
    if ctx.ends or not ctx.batched or loop.axis != ctx.system.stream or _marked(ctx.system, loop):
        return []
    if any(isinstance(s, Loop) or s.tensor in ctx.late for s in loop.body) or any(t.dtype not in SMOOTH for t in tensors):
        return []
    if any(r.tail is None or r.boundary is not None or positions[r.tensor] != r.position for r in records):
        return []
    if ctx.past and any(_further(ctx, t) for t in tensors):  # the functions know the new positions alone
        return []
    if any(e.position != positions[t.name] and t.indices[e.position] not in ctx.fixed for t in tensors for e in t.edges):
        return []
    rights = [t.rhs for t in tensors if t.rhs is not None]
    if any(_foreign(n) for rhs in rights for n in walk(rhs)) or any(_tells(ctx, loop, rhs) for rhs in rights):
        return []
    found: dict[str, None] = {}
    for tensor in tensors:
        here = build.index(tensor.indices[positions[tensor.name]])
        for read in reads_below(tensor.rhs) if tensor.rhs is not None else ():
            name = str(read.attr)
            if any(read_names(a) for a in read.args):
                return []
            if name not in positions or not ctx.is_here(read):
                if not ctx.fixed and (not isinstance(ctx.places.get(name), Stored) or ctx.system.tensors[name].edges):
                    return []
                continue
            gap = difference(here, read.args[positions[name]])
            back = gap.get(None, 0) * (-1 if loop.reverse else 1)
            if set(gap) - {None} or not 0 <= back <= LONGEST:
                return []
            if back:
                found[name] = None
    if ctx.fixed and ctx.past and any(counts(ctx.system, t, loop.axis) for t in tensors):
        return []
    return list(found)


def _tells(ctx: Context, loop: Loop, node: Node) -> bool:
    """Does a step use the position of a loop around otherwise than to read there?"""
    if node.free.isdisjoint(ctx.fixed):
        return False
    if node.op == "read" and not (ctx.is_here(node) and node.attr in loop.tensors()):
        return False
    args = [a for a in node.args if node.op != "read" or a.op != "index"]
    return node.op == "index" or any(_tells(ctx, loop, a) for a in args)


def _marked(system: System, loop: Loop) -> bool:
    """Is part of it taken in another order than that of its steps?"""
    rights = [system.tensors[n].rhs for n in loop.tensors()]
    return any(n.op in MARKED for r in rights if r is not None for n in walk(r))


def _further(ctx: Context, tensor: Tensor) -> bool:
    """Does an equation speak of a further index of the stream, which runs over the positions before too?"""
    names = (*tensor.indices, *(index_names(tensor.rhs) if tensor.rhs is not None else ()))
    return any(ctx.on_stream(i) and not ctx.is_new(i) for i in names)


def _foreign(node: Node) -> bool:
    """Is it an operator with a gradient of its own?"""
    return node.op in ONLINE or OPS[node.op].binding in ("scan", "last", "fold")


def counts(system: System, tensor: Tensor, axis: str) -> bool:
    """Does a step use its position itself?"""
    pending = [tensor.rhs] if tensor.rhs is not None else []
    while pending:
        node = pending.pop()
        if node.op == "index" and system.axis(str(node.attr)) == axis:
            return True
        own = system.tensors[str(node.attr)].indices if node.op == "read" else ()
        pending += [a for a, i in zip(node.args, own, strict=True) if system.axis(i) != axis] if own else node.args
    return False
