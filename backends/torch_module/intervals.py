"""Sums and products over an interval: `sum[r | s < r <= t] x[r]`, whose ends other indices give, as running ones instead
of a mask of all pairs. What lies outside an interval is never subtracted or divided by, nor multiplied by 0: it may be 0 or
infinite, and what is small beside it keeps its digits. Entry points: `over_interval`, `interval`, `is_product`.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.ir import build
from seqdsl.ir.node import Node, reads
from seqdsl.ir.ops import bound
from seqdsl.ir.order import difference, written

from . import expressions
from .context import Context
from .values import Value, spread


@dataclass(frozen=True)
class Interval:
    """`name` is at least `begin`, if that is known, and less than `end`; other guards vary only as what is summed does. A
    `width` is how long an interval is whose ends move together."""

    name: str
    begin: Node | None
    end: Node | None
    width: Node | None
    others: tuple[Node, ...]


def over_interval(ctx: Context, node: Node, factors: list[Node], guards: list[Node]) -> Value | None:
    """The sum of the factors' product over one index, or the product of them all; None where the guards are no interval of
    that kind."""
    found = interval(ctx, node, guards, factors)
    if found is None:
        return None
    product = is_product(node)
    body = expressions.convert(ctx, expressions.emit(ctx, build.product(factors)), node.dtype)
    x = expressions.tensor(ctx, body, node.dtype)
    mask = expressions.condition(ctx, list(found.others))
    if mask is not None:
        mask, x = spread(expressions.tensor(ctx, mask, "bool"), x.dims), spread(x, x.dims)
        x = Value(f"torch.where({mask.text}, {x.text}, {int(product)})", x.dims, node.dtype)
    at = x.dims.index(found.name)
    lead, rest = x.dims[:at], x.dims[at + 1 :]
    ends = [None if e is None else expressions.emit(ctx, e) for e in (found.begin, found.end)]
    kind = "product" if product else "sum"
    if found.width is not None:
        begin, width = ends[0], expressions.emit(ctx, found.width)
        assert begin is not None
        text = f"{ctx.support(f'sliding_{kind}')}({x.text}, {at}, {begin.text}, {width.text})"
        return Value(text, (*lead, *begin.dims, *rest), node.dtype)
    made = [d for e in ends if e is not None for d in e.dims]
    sides = [f"{side}={e.text}" for side, e in zip(("begin", "end"), ends, strict=True) if e is not None]
    text = f"{ctx.support(f'interval_{kind}')}({', '.join([x.text, str(at), *sides])})"
    return Value(text, (*lead, *made, *rest), node.dtype)


def is_product(node: Node) -> bool:
    """A product that may be a running one; of whole numbers and conditions all are masked."""
    return node.op == "prod" and node.dtype in ("real", "complex")


def interval(ctx: Context, node: Node, guards: list[Node], factors: list[Node]) -> Interval | None:
    """What the guards of a sum over one index say of it, if they are the ends of an interval, and move with other indices
    than what is summed. Ends that are data are left to a mask."""
    name, *more = bound(node)
    if more or name in ctx.fixed or not _is_whole(ctx, name):
        return None
    sides: tuple[list[Node], list[Node]] = ([], [])
    others, body = [], build.product(factors)
    for guard in guards:
        if guard.free <= body.free:  # a mask of no more than what is summed
            others.append(guard)
            continue
        side = _end(name, guard)
        if side is None or reads(side[1]) or side[1].free & set(ctx.fixed):
            return None
        sides[side[0]].append(side[1])
    moving = [{i for n in side for i in n.free} for side in sides]
    if not (moving[0] or moving[1]) or body.free & (moving[0] | moving[1]) or name not in body.free:
        return None
    if not any(f.free == body.free for f in factors):  # a product that is wider than its factors is better contracted
        return None
    width = _width(*sides) if moving[0] & moving[1] else None
    if moving[0] & moving[1] and width is None:
        return None
    begin, end = (_innermost(op, side) for op, side in zip(("maximum", "minimum"), sides, strict=True))
    return Interval(name, begin, end, width, tuple(others))


def _is_whole(ctx: Context, name: str) -> bool:
    """Do its positions begin at 0, in one sequence?"""
    return not ctx.on_stream(name) or not ctx.ends and not (ctx.past and ctx.is_new(name))


def _end(name: str, guard: Node) -> tuple[int, Node] | None:
    """0 and what the index is at least, or 1 and what it is less than."""
    if guard.op not in ("lt", "le") or any(a.dtype != "int" for a in guard.args):
        return None
    form = dict(difference(*guard.args))  # below 0, or at most 0
    sign = form.pop(build.index(name), None)
    if any(t is not None and name in t.free for t in form) or any(c.denominator != 1 for c in form.values()):
        return None
    strict = guard.op == "lt"
    if sign == 1:  # r + rest < 0
        return 1, written({t: -c for t, c in form.items()}, 0 if strict else 1)
    return (0, written(form, 1 if strict else 0)) if sign == -1 else None


def _width(lower: list[Node], upper: list[Node]) -> Node | None:
    """The number of positions in an interval whose ends move together, if that is a number."""
    if len(lower) != 1 or len(upper) != 1:
        return None
    form = difference(upper[0], lower[0])
    return None if any(t is not None and t.free for t in form) else written(form)


def _innermost(op: str, side: list[Node]) -> Node | None:
    """The one end of several that leaves the least."""
    whole = side[0] if side else None
    for other in side[1:]:
        assert whole is not None
        whole = build.make(op, whole, other)
    return whole
