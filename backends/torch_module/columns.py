"""Which columns a block of rows can count: bounds from the affine conjuncts of a guard, as functions of the rows.

`s <= t` bounds s by the block's last row, `t - W < s` from below by its first. Only integers that Python knows at each
call take part, so nothing is read back from a device. Entry point: `columns_text`.
"""

from __future__ import annotations

from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS
from seqdsl.ir.order import Linear, difference
from seqdsl.ir.support import named_conditions

from . import expressions
from .context import Context


def columns_text(ctx: Context, row: str, column: str, guard: Node) -> str:
    """`(0, last + 1)`: the first column that may count, and the first of those after; "" where nothing is known."""
    if ctx.past and ctx.is_new(column):
        return ""  # the columns do not begin at position 0
    low: list[Node] = []
    high: list[Node] = []
    for fact in named_conditions(ctx.system, guard):
        for slack in slacks(fact):
            _bound(ctx, slack, row, column, low, high)
    if not low and not high:
        return ""
    first, last = (_texts(ctx, row, nodes) for nodes in (low, high))
    length = ctx.length(column)
    begin = "0" if not first else first[0] if len(first) == 1 else f"max({', '.join(first)})"
    end = length if not last else last[0] if len(last) == 1 else f"min({', '.join(last)})"
    return f"({begin}, {end})"


def slacks(fact: Node) -> list[Linear]:
    """Forms that are not negative where the fact holds."""
    if fact.op not in ("lt", "le", "eq") or any(a.dtype != "int" for a in fact.args):
        return []
    a, b = fact.args
    if fact.op == "lt":
        return [difference(b, build.add(a, build.ONE))]
    return [difference(b, a)] if fact.op == "le" else [difference(b, a), difference(a, b)]


def _bound(ctx: Context, slack: Linear, row: str, column: str, low: list[Node], high: list[Node]) -> None:
    """0 <= slack as a bound of the column, with `first` or `last` (marked by the row's index, primed for the first)."""
    own = slack.get(build.index(column), Fraction(0))
    along = slack.get(build.index(row), Fraction(0))
    rest = {t: c for t, c in slack.items() if t not in (build.index(column), build.index(row))}
    if abs(own) != 1 or any(c.denominator != 1 for c in (along, *rest.values())):
        return
    if any(t is not None and not _known(ctx, t) for t in rest):
        return
    total = build.ZERO
    for term, c in rest.items():
        total = build.add(total, build.mul(build.const(int(c)), build.ONE if term is None else term))
    # own = -1: s <= along * t + rest; own = +1: s >= -(along * t) - rest
    upper = own < 0
    factor = int(along) if upper else -int(along)
    place = build.index(f"{row}'" if (factor > 0) != upper else row)
    total = total if upper else build.neg(total) if total is not build.ZERO else total
    value = build.add(build.mul(build.const(factor), place), total)
    (high if upper else low).append(build.add(value, build.ONE) if upper else value)


def _known(ctx: Context, term: Node) -> bool:
    return not any(n.op in ("read", "index") or OPS[n.op].binding for n in walk(term))


def _texts(ctx: Context, row: str, nodes: list[Node]) -> list[str]:
    """The bounds as Python numbers; rows count from the first new position."""
    shift = ctx.past and ctx.is_new(row)
    places = {row: "(past + last)" if shift else "last", f"{row}'": "(past + first)" if shift else "first"}
    with ctx.having(fixed=places, caches=[{}]):
        return [expressions.emit(ctx, n).text for n in dict.fromkeys(nodes)]
