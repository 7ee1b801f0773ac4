"""Scatters: `sum[t | place == p] x`, where the place of each t is data, adds every x[t] to its place instead of comparing
all places with all p. Entry point: `segment_sum`.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.order import difference

from . import contractions, expressions
from .context import Context
from .values import SUM, Value, merge


def segment_sum(ctx: Context, node: Node, names: tuple[str, ...], guards: list[Node]) -> Value | None:
    """A sum over one index, scattered; None where it is no scatter.

    Where the guard holds, p is the place: the body is read there, so that it does not vary along p.
    """
    if node.op != "sum" or len(names) != 1 or names[0] in ctx.fixed:
        return None
    found = [(g, target, place) for g in guards for target, place in _placed(ctx, g, names[0])]
    if len(found) != 1:
        return None
    fact, target, place = found[0]
    others = [g for g in guards if g is not fact]
    known = (place.free | node.args[0].free) - {target}
    if any(not g.free <= known for g in others) or ctx.past and ctx.on_stream(names[0]):
        return None
    streamed = ctx.past and ctx.on_stream(target)
    if streamed and not ctx.is_new(target):
        return None
    with ctx.guarded(tuple(g for g in ctx.guards if g is not fact)):  # a place may lie outside
        body = expressions.emit(ctx, build.substitute(node.args[0], {target: place}))
        if body.dtype not in ("real", "complex"):
            body = expressions.convert(ctx, body, node.dtype)
        x, *mask = contractions.masked(ctx, node, [body], others)
        for factor in mask:
            x = contractions.times(ctx, node, x, factor)
        x = expressions.tensor(ctx, x, node.dtype)
        places = expressions.emit(ctx, place)
        if streamed:  # the places before the new positions have their sums already
            places = Value(f"{places.at(SUM)} - past", places.dims, "int", SUM)
    dims = (*(d for d in ctx.ordered(merge(x.dims, places.dims)) if d != names[0]), names[0])
    x, places = expressions.full(ctx, x, dims, node.dtype), expressions.full(ctx, places, dims, "int")
    text = f"{ctx.helper('_segment_sum')}({x.text}, {places.text}, {ctx.length(target)})"
    return Value(text, (*dims[:-1], target), node.dtype)


def _placed(ctx: Context, fact: Node, name: str) -> list[tuple[str, Node]]:
    """(p, place) for a guard that says: the place of `name`, which is data, is p."""
    found = []
    for own, other in (fact.args, fact.args[::-1]) if fact.op == "eq" else ():
        for target in own.free - other.free - {name, *ctx.fixed}:
            shift = difference(own, build.index(target))
            data = any(n.op == "read" and name in n.free for n in walk(other))
            if set(shift) <= {None} and other.dtype == "int" and data:
                found.append((target, build.sub(other, build.const(int(shift.get(None, 0))))))
    return found
