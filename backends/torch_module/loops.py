"""What stands inside a loop and what does not: parts computed before it, readers moved into it.

Architecture invariant: changes where something is computed, never what.
"""

from __future__ import annotations

from collections.abc import Iterator

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, Step
from seqdsl.ir.node import Node, walk
from seqdsl.ir.node import reads as reads_below
from seqdsl.ir.ops import OPS, bound, made
from seqdsl.ir.order import difference
from seqdsl.ir.system import System, Tensor, folds

from . import expressions, newton
from .context import Context, Layered
from .table import LEAVES, ONLINE


def sink(system: System, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Move what reads a loop's tensors at the same position into the loop: then the states are not all kept."""
    result: list[Step] = []
    pending = list(steps)
    while pending:
        step = pending.pop(0)
        if isinstance(step, Loop) and all(_whole(system, s) for s in step.body) and not _marked(system, step):
            step = _absorb(system, step, pending)
        result.append(step)
    return tuple(result)


def _whole(system: System, step: Step) -> bool:
    """Is it no loop inside?"""
    return isinstance(step, Compute) or newton.is_solved(system, step)


def _marked(system: System, loop: Loop) -> bool:
    """Is it no loop over time, but solved, or taken level by level, as a whole?"""
    rhs = [system.tensors[n].rhs for n in loop.tensors()]
    innermost = all(isinstance(s, Compute) for s in loop.body)
    return innermost and all(r is not None and r.op in ("newton", "level") for r in rhs)


def is_apart(ctx: Context, loop: Loop) -> bool:
    """Does a loop inside another give its tensors whole?"""
    return loop in ctx.functions or newton.is_solved(ctx.system, loop)


def keys_of(ctx: Context, loop: Loop, name: str, depth: int = 0) -> Iterator[tuple[int, int]]:
    """(depth, position) of the indices of a tensor that loops drive."""
    for tensor, position in loop.positions:
        if tensor == name:
            yield depth, position
    for step in loop.body:
        if isinstance(step, Loop) and not is_apart(ctx, step):
            yield from keys_of(ctx, step, name, depth + 1)


def _absorb(system: System, loop: Loop, pending: list[Step]) -> Loop:
    inside = dict(loop.positions)
    later: set[str] = set()
    for step in list(pending):
        if not isinstance(step, Compute):
            later |= set(step.tensors())
            continue
        tensor = system.tensors[step.tensor]
        position = _absorbable(system, tensor, loop, inside, later)
        if position is None:
            later.add(tensor.name)
            continue
        inside[tensor.name] = position
        pending.remove(step)
        loop = Loop(loop.axis, loop.reverse, (*loop.body, step), (*loop.positions, (tensor.name, position)))
    return loop


def _absorbable(system: System, tensor: Tensor, loop: Loop, inside: dict[str, int], later: set[str]) -> int | None:
    """The position of the looped index, where the tensor reads a wider one of the loop, all at the same position; or any
    one, others at steps before, if it is the end of a state that a step of the loop has gone through."""
    places = [k for k, i in enumerate(tensor.indices) if system.axis(i) == loop.axis]
    if len(places) != 1 or tensor.edges or tensor.kind != "derived":
        return None
    if tensor.rhs is not None and any(tensor.indices[places[0]] in (*bound(n), *made(n)) for n in walk(tensor.rhs)):
        return None  # what works along the index reads all of its positions
    wider = end = tensor.name in system.finals.values()
    own = False
    for read in reads_below(tensor.rhs) if tensor.rhs is not None else ():
        if read.attr in later or any(e.tensor in later for e in system.tensors[str(read.attr)].edges):
            return None
        if read.attr in inside:
            subscript = read.args[inside[str(read.attr)]]
            gap = difference(subscript, build.index(tensor.indices[places[0]]))
            back = int(gap.get(None, 0)) * (-1 if loop.reverse else 1)
            if set(gap) - {None} or back > 0 or (back and not end):
                return None
            own = True
            wider |= len(system.tensors[str(read.attr)].indices) > len(tensor.indices)
    if folds(tensor.rhs):
        return None
    return places[0] if wider and own else None


def hoist(ctx: Context, loop: Loop, inside: set[str], apart: set[str]) -> None:
    """Compute what does not depend on the loop before it, over the whole axis; not of parameters that every step has of
    its own, unless an inner loop would compute it at each of its steps. Tensors `apart` are computed otherwise."""
    dependent = inside | _waiting(ctx)
    if not ctx.fixed and not any(isinstance(step, Loop) and step not in ctx.functions for step in loop.body):
        dependent |= {name for name, place in ctx.places.items() if isinstance(place, Layered)}
    for name in [n for n in ctx.system.tensors if n in inside and n not in apart]:
        tensor = ctx.system.tensors[name]
        with ctx.equation(tensor):
            assert tensor.rhs is not None
            for node in _candidates(ctx, tensor.rhs, dependent, safe=True):
                if node not in ctx.hoisted:
                    value = expressions.emit(ctx, node)
                    if not value.static and not value.text.isidentifier():
                        value = ctx.bind(expressions.temporary(ctx, node), value)
                    ctx.hoisted[node] = value


def is_narrow(node: Node) -> bool:
    """Is a value no wider than what it is made of, so that nothing is written out by computing it at all positions?"""
    return bool(OPS[node.op].binding) or node.op == "read" or any(node.free <= a.free for a in node.args)


def _waiting(ctx: Context) -> set[str]:
    """Tensors that are not computed yet."""
    return {t.name for t in ctx.system.derived() if t.name not in ctx.places}


def _depends(ctx: Context, node: Node, inside: set[str]) -> bool:
    for n in walk(node):
        if n.op == "read":
            tensor = ctx.system.tensors[str(n.attr)]
            if (n.attr in inside and ctx.is_here(n)) or any(e.tensor in inside for e in tensor.edges):
                return True
    return False


def _candidates(ctx: Context, node: Node, inside: set[str], *, safe: bool) -> Iterator[Node]:
    """The largest parts that do not depend on the loop and are no wider than what they are made of."""
    if node.op in LEAVES and not (node.op == "read" and any(a.op != "index" for a in node.args)):
        return
    if not _depends(ctx, node, inside) and any(n.op == "read" for n in walk(node)):
        if is_narrow(node) and (safe or not expressions.sensitive(node)):
            yield node
            return
    if node.op in ONLINE:  # computes its scores block by block, from operands of its own
        return
    below_guard = node.op == "where" or OPS[node.op].binding in ("reduce", "along")
    for k, arg in enumerate(node.args):
        guarded = below_guard and (k > 0 if node.op == "where" else k < len(node.args) - 1 and node.args[-1] is not build.TRUE)
        if OPS[node.op].binding and not guarded:
            yield from _candidates(ctx, arg, inside, safe=safe)
        else:
            yield from _candidates(ctx, arg, inside, safe=safe and not guarded)
