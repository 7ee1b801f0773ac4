"""Sums that scatter: `sum[a | key == n] body` adds each entry at the position that its key names, in one pass over the
entries, where a mask would take every entry at every position.

Architecture invariant: changes how such a sum is added up, never its terms. Entry point: `scattered`.
"""

from __future__ import annotations

from seqdsl.ir.node import Node, read_names
from seqdsl.ir.ops import bound

from . import expressions
from .context import Context
from .values import ATOM, BATCH, SUM, Value, merge, plain, with_ones


def scattered(ctx: Context, node: Node, guards: list[Node]) -> Value | None:
    """The sum as one scatter; None where its guard is not just that data of the entry name a position."""
    found = _target(ctx, node, guards)
    if found is None:
        return None
    (item,), (key, target) = bound(node), found
    value = plain(expressions.emit(ctx, node.args[0]))
    if value.static or item not in value.dims or value.dtype == "bool":
        return None
    place = expressions.emit(ctx, key)
    if ctx.past and ctx.is_new(target):
        place = Value(f"{place.at(SUM)} - past", place.dims, "int", SUM)
    rest = tuple(d for d in value.dims if d not in (BATCH, item))
    batched = BATCH in merge(value.dims, place.dims)
    value = expressions.full(ctx, value, (BATCH, item, *rest), value.dtype) if batched else value
    texts = [with_ones(v, (BATCH, item, *more)).text for v, more in ((value, rest), (place, ()))]
    text = f"{ctx.helper('_scatter_sum')}({', '.join(texts)}, {ctx.length(target)})"
    whole = Value(text if batched else f"{text}[0]", (*((BATCH,) if batched else ()), target, *rest), value.dtype, ATOM)
    return expressions.convert(ctx, whole, node.dtype)


def _target(ctx: Context, node: Node, guards: list[Node]) -> tuple[Node, str] | None:
    """The key of an entry, and the index that runs over what it may name."""
    if node.op != "sum" or len(bound(node)) != 1 or len(guards) != 1 or guards[0].op != "eq":
        return None
    (item,) = bound(node)
    for key, other in (guards[0].args, guards[0].args[::-1]):
        target = str(other.attr) if other.op == "index" else ""
        if target and target != item and key.free == {item} and key.dtype == "int" and read_names(key):
            moving = {item, target} | node.args[0].free
            return (key, target) if target not in node.args[0].free and not moving & set(ctx.fixed) else None
    return None
