"""What crosses ranks where each holds a piece of the stream: the elements of recurrences, and windows of earlier positions.

Architecture invariant: nothing else in a module knows of ranks; `group` is the process group that its caller gives.
Entry points: `crosses`, `states`, `window`.
"""

from __future__ import annotations

from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import options
from seqdsl.ir.state import POSITION
from seqdsl.ir.system import System

from . import expressions, scans
from .context import Context
from .values import BATCH, Value, merge, plain, with_ones

GROUP = "group"
ALONE = 'group="alone"'  # the argument that says so
FORWARD = [
    "The outputs at this rank's piece of the stream; with `return_state` the state after the last piece as well.",
    "",
    "Each rank of `group` passes its own piece, of any length, in the order of the ranks. None is the default process group, "
    'or without one, as with "alone", no other rank. All of them must call, forward and backward, with the same options. '
    "`state` is what enters the first piece, and counts on the first rank; what is returned is the same on all of them. What "
    "is no piece of the stream, parameters too, is given alike to all ranks, and its gradient is the sum over them. "
    "`cu_seqlens`: ends of this rank's pieces of packed sequences, one of each sequence on every rank.",
]


def crosses(system: System) -> bool:
    """Does the system say what enters a piece?"""
    return any(e.across for e in system.record or ()) or _has(system, "across_ranks") or folds(system)


def folds(system: System) -> bool:
    """Are there prefix folds, of which a state holds all positions?"""
    return _has(system, "over_ranks")


def _has(system: System, op: str) -> bool:
    return any(n.op == op for t in system.derived() if t.rhs is not None for n in walk(t.rhs))


def positions_cross(system: System) -> bool:
    """Are the positions of a piece counted from those before it?"""
    return any(e.name == POSITION and e.across for e in system.record or ())


def states(ctx: Context, node: Node) -> Value:
    """The states of an `across_ranks`: a matrix acts on rows beside columns, anything else entry by entry."""
    side, *kept = node.attr[0]
    read: tuple[str, ...] = node.attr[1]
    given = options(node)
    a, b, start = (expressions.tensor(ctx, v, node.dtype if v.static else v.dtype) for v in _values(ctx, node))
    every = [d for d in merge(a.dims, b.dims, start.dims) if d not in (BATCH, *kept, *read)]
    heads = ctx.ordered(tuple(d for d in every if d in a.dims)) if read else ctx.ordered(tuple(every))
    columns = ctx.ordered(tuple(d for d in every if d not in heads))
    groups = [heads, tuple(kept), columns]
    whole = (BATCH, *heads, *kept, *columns)
    b, start = (expressions.full(ctx, x, whole, node.dtype) for x in (b, start))
    if read:
        a = expressions.full(ctx, a, (*(d for d in (BATCH,) if d in a.dims), *heads, *kept, *read), a.dtype)
        texts = [scans.blocks(ctx, a, (BATCH,), [heads, tuple(kept), read])]
        texts += [scans.blocks(ctx, x, (BATCH,), groups) for x in (b, start)]
    else:
        texts = [with_ones(a, whole).text, b.text, start.text]
    flags = f'acts="{given["acts"]}"' + (", reverse=True" if given["reverse"] else "")
    name = ctx.names.fresh(f"{ctx.current}_states") if read else ""
    call = f"{ctx.ranks}.states({', '.join(texts)}, {flags})" + (".round().long()" if node.dtype == "int" else "")
    if not read:
        return Value(call, (side, *whole), node.dtype)
    ctx.block.add(f"{name} = {call}")
    return scans.restored(ctx, name, (side, BATCH), groups, node.dtype, True)


def _values(ctx: Context, node: Node) -> list[Value]:
    return [plain(expressions.emit(ctx, x)) for x in node.args]


def window(ctx: Context, name: str, whole: Value, before: Value, dim: int, lengths: list[str]) -> tuple[Value, Value]:
    """What lies before this piece of a tensor, and after the last piece, from what lies before the first one."""
    names = [ctx.names.fresh(f"{name}_{part}") for part in ("before", "last")]
    call = f"{ctx.ranks}.window({whole.text}, {before.text}, {dim})"
    ctx.block.add(f"{', '.join(names)} = {call}  # [{', '.join(lengths)}]")
    return Value(names[0], before.dims, before.dtype), Value(names[1], before.dims, before.dtype)
