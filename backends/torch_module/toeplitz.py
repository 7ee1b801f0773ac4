"""Sums over the positions up to this one whose weights depend on how far back they lie: convolutions, spelt with positions.

In `sum[s | s <= t] w[t-s] * x[s]` the kernel is w with the lag in place of t - s, and the signal is all that varies along
s alone; further guards of the lag are part of the kernel. A transform's error is that of the largest numbers anywhere, a
sum's that of its own terms: signals may grow (`exp(k[s])`), so transforms are float64. Entry point: `convolution`.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound, remake
from seqdsl.ir.order import Linear, difference, linear

from . import contractions, convolutions, expressions
from .context import Context
from .values import Value, plain

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def convolution(
    ctx: Context, node: Node, factors: list[Node], below: list[Node], names: tuple[str, ...], guards: list[Node]
) -> Value | None:
    """The sum of the factors' product, over the product of those below, as a convolution; None where it is not one."""
    factors = [*factors, *(build.div(build.const(Fraction(1)), f) for f in below)]
    found = _parts(ctx, factors, names, guards) if node.dtype == "real" else None  # transforms round
    if found is None:
        return None
    time, signal, kernel = found
    lag = names[0]
    x, w = _product(ctx, node, signal), _product(ctx, node, kernel)
    if x.dtype == "complex" or lag not in w.dims:
        return None  # a kernel of one weight is a cumulative sum
    x = replace(x, dims=tuple(time if d == lag else d for d in x.dims))
    before = "past" if ctx.stateful and time == ctx.system.stream else ""  # other indices run over past positions, too
    return convolutions.long(ctx, node, x, w, time, lag, before, exact=True)


def _parts(
    ctx: Context, factors: list[Node], names: tuple[str, ...], guards: list[Node]
) -> tuple[str, list[Node], list[Node]] | None:
    """The index of this position, the factors of the signal, and those of the kernel, which have the lag for the summed
    index."""
    if len(names) != 1 or names[0] in ctx.fixed or ctx.ends:  # packed sequences are convolved one by one
        return None
    leaves = [n for f in (*factors, *guards) for n in walk(f) if n.op in ("read", "index")]
    if any(n in ctx.hoisted or n.attr in ctx.local for n in leaves):  # inside a step, where axes are pieces
        return None
    earlier = names[0]
    time = next((t for g in guards if (t := _later(ctx, g, earlier))), None)
    if time is None or time in ctx.fixed:
        return None
    signal = [f for f in factors if time not in f.free]
    kernel = [_lagged(f, time, earlier) for f in factors if time in f.free]
    rest = [_lagged(g, time, earlier) for g in guards if _later(ctx, g, earlier) != time or _strict(g)]
    if not signal or not kernel or None in kernel or None in rest:
        return None
    guard = build.TRUE
    for fact in rest:
        assert fact is not None
        guard = build.both(guard, fact)
    chosen = [f if guard is build.TRUE else build.where(guard, f, build.ZERO) for f in kernel if f is not None]
    return time, signal, chosen


def _later(ctx: Context, guard: Node, earlier: str) -> str:
    """The position that a guard says is at or after the one of index `earlier`, on the same axis; "" for other guards."""
    if guard.op not in ("le", "lt"):
        return ""
    form = difference(*guard.args)
    others = [n for n in form if n is not None and n is not build.index(earlier)]
    if form.get(build.index(earlier)) != 1 or len(others) != 1 or others[0].op != "index" or form[others[0]] != -1:
        return ""
    time = str(others[0].attr)
    return time if form.get(None, 0) == 0 and ctx.axis(time) == ctx.axis(earlier) else ""


def _strict(guard: Node) -> bool:
    return guard.op == "lt"


def _lagged(node: Node, time: str, earlier: str) -> Node | None:
    """The node with `earlier` as the lag, where it depends on the two positions by their difference alone."""
    if not {time, earlier} & node.free:
        return node
    if node.op in COMPARISONS and all(a.dtype == "int" for a in node.args):
        form = difference(*node.args)
        if _balanced(form, time, earlier):
            ahead = form[build.index(time)]  # on the left, the rest on the right
            rest = {n: -c for n, c in form.items() if n is None or not {time, earlier} & n.free}
            return build.make(node.op, build.mul(build.const(int(ahead)), build.index(earlier)), _whole(rest))
    if node.dtype == "int" and _balanced(linear(node), time, earlier):
        return _of_lag(linear(node), time, earlier)
    if node.op == "index" or earlier in bound(node):
        return None
    args = [_lagged(a, time, earlier) for a in node.args]
    return None if None in args else remake(node, tuple(a for a in args if a is not None))


def _balanced(form: Linear, time: str, earlier: str) -> bool:
    """Does a linear form depend on the difference of the positions, in whole numbers?"""
    others = [n for n in form if n is not None and n not in (build.index(time), build.index(earlier))]
    ahead = form.get(build.index(time), 0)
    whole = all(c.denominator == 1 for c in form.values())
    free = not any({time, earlier} & n.free for n in others)
    return whole and free and ahead != 0 and ahead == -form.get(build.index(earlier), 0)


def _of_lag(form: Linear, time: str, earlier: str) -> Node:
    rest = {n: c for n, c in form.items() if n is None or not {time, earlier} & n.free}
    return build.add(build.mul(build.const(int(form[build.index(time)])), build.index(earlier)), _whole(rest))


def _whole(form: Linear) -> Node:
    return build.total(build.const(int(c)) if n is None else build.mul(build.const(int(c)), n) for n, c in form.items())


def _product(ctx: Context, node: Node, factors: list[Node]) -> Value:
    found: Value | None = None
    for f in factors:
        found = contractions.times(ctx, node, found, plain(expressions.emit(ctx, f)))
    assert found is not None
    return plain(found)
