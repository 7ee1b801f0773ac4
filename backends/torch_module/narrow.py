"""Operands at the width at which they are given, for stand-ins that cast them themselves (`target.StandIn.narrow`).

What such a function multiplies it rounds to the width of its products in any case: casting an input to the width of the
computation before that costs memory and gains nothing. Entry points: `given`, `operands`, `whole_input`.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk

from . import contractions, expressions, reads, scans
from .context import Context, Stored
from .values import ATOM, PRODUCT, Value, plain, spread


def given(ctx: Context, node: Node) -> Value:
    """An operand: an input as it is given, or times a factor that lacks some of its indices; else as ever."""
    if _is_given(ctx, node):
        return _input(ctx, node)
    if node.op not in ("mul", "neg", "div") or node in ctx.hoisted or ctx.uses.get(node, 0) > 1:
        return scans.operand(ctx, node)
    sign, ups, downs = contractions.signed_factors(ctx, node)
    vectors = [f for f in ups if _is_given(ctx, f) and all(x is f or x.free < f.free for x in (*ups, *downs))]
    if not vectors:
        return scans.operand(ctx, node)
    ups.remove(vectors[0])
    factor = build.quotient(ups, downs)
    value = plain(expressions.emit(ctx, factor if sign > 0 else build.neg(factor)))
    vector = _input(ctx, vectors[0])
    if not value.static:
        value = spread(expressions.tensor(ctx, value, "real"), vector.dims)
        if "rows" in ctx.target.calls:
            return Value(f"{ctx.support('rows')}({vector.text}, {value.text})", vector.dims)
        value = Value(f"{value.at(ATOM)}.to({vector.text}.dtype)", vector.dims)
    return Value(f"{vector.text} * {value.at(PRODUCT + 1)}", vector.dims, "real", PRODUCT)


def operands(ctx: Context, function: str, node: Node) -> list[Value]:
    """The operands of a node for a function of `support`, or for what stands in for it."""
    return [(given if ctx.target.call(function).narrow else scans.operand)(ctx, x) for x in node.args]


def whole_input(ctx: Context, node: Node) -> Value | None:
    """An input with all its positions, new and old, as given; None for anything else. What a state holds is as wide as
    the computation, and so is then the whole."""
    if not _is_read(ctx, node):
        return None
    tensor = ctx.system.tensors[str(node.attr)]
    plainly = tensor.kind == "input" and tensor.dtype == "real"
    return _input(ctx, node) if plainly and isinstance(ctx.places.get(tensor.name), Stored) else None


def only_operand(ctx: Context, name: str, ops: tuple[str, ...]) -> bool:
    """Is a tensor nothing but an operand of such nodes?"""
    system = ctx.system
    readers = [n for t in system.derived() if t.rhs is not None for n in (t.rhs, *walk(t.rhs))]
    inside = all(n.op in ops or not any(a.op == "read" and a.attr == name for a in n.args) for n in readers)
    whole = any(t.rhs is not None and t.rhs.op == "read" and t.rhs.attr == name for t in system.derived())
    kept = {*system.outputs, *system.finals.values(), *ctx.records}
    return inside and not whole and name not in kept and not any(
        e.tensor == name for t in system.tensors.values() for e in t.edges
    )


def _is_read(ctx: Context, node: Node) -> bool:
    return node.op == "read" and str(node.attr) not in ctx.local and all(x.op == "index" for x in node.args)


def _is_given(ctx: Context, node: Node) -> bool:
    """A read of an input, all of it and in its own order."""
    if not _is_read(ctx, node):
        return False
    tensor = ctx.system.tensors[str(node.attr)]
    place = ctx.places.get(tensor.name)
    plainly = tensor.kind == "input" and tensor.dtype == "real" and tensor.name not in ctx.records
    return plainly and isinstance(place, Stored) and not place.full


def _input(ctx: Context, node: Node) -> Value:
    tensor = ctx.system.tensors[str(node.attr)]
    place = ctx.places[tensor.name]
    assert isinstance(place, Stored)
    ctx.taken.add(tensor.name)
    return reads.stored(ctx, tensor, node, place)
