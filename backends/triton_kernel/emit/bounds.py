"""Which blocks along one index a block of the other can count, from the affine conjuncts of a guard.

`s <= t` bounds s by the block's last t and, for blocks that need no mask, by its first. Bounds are texts of Triton
scalars. A conjunct that is not affine leaves no block unmasked. Entry point: `block_range`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS
from seqdsl.ir.order import Linear

from ...torch_module.columns import slacks
from .score import Score


@dataclass(frozen=True)
class Range:
    """Lines that set `begin`, `whole`, `whole_end` and `end`: masked blocks from begin to whole and from whole_end to end,
    the others between. `left` and `right` say whether a bound cuts there; without `inner` every block is masked."""

    lines: list[str]
    left: bool
    right: bool
    inner: bool


def block_range(score: Score, moving: str, size: str, width: str, first: str, last: str) -> Range:
    """The range of `moving` for a block whose first and last rows (of the other index) are these texts."""
    lows: list[tuple[str, str]] = []  # (for what is visited, for what is whole), as positions
    highs: list[tuple[str, str]] = []
    inner = True
    for fact in score.facts:
        forms = slacks(fact)
        inner = inner and bool(forms)
        for form in forms:
            found = _bound(score, form, moving, first, last)
            if found is None:
                inner = False
            else:
                (highs if found[0] else lows).append(found[1:])
    low, whole = (_extreme([b[k] for b in lows], "tl.maximum", "0") for k in (0, 1))
    high, whole_end = (_extreme([b[k] for b in highs], "tl.minimum", size) for k in (0, 1))
    lines = [f"begin = {low} // {width} * {width}" if lows else "begin = 0", f"end = {high}"]
    if inner:
        lines.append(f"whole_end = {f'tl.maximum({whole_end}, 0)' if highs else size} // {width} * {width}")
        if lows:
            lines.append(f"whole = tl.minimum(tl.cdiv({whole}, {width}) * {width}, end)")
            lines.append("whole_end = tl.maximum(whole, whole_end)")
        else:
            lines.append("whole = 0")
    return Range(lines, bool(lows) and inner, True, inner)


def _extreme(bounds: list[str], function: str, edge: str) -> str:
    text = edge
    for b in bounds:
        text = f"{function}({text}, {b})"
    return text


def _bound(score: Score, form: Linear, moving: str, first: str, last: str) -> tuple[bool, str, str] | None:
    """(is it an upper bound, the one for visited blocks, the one for whole blocks) from `0 <= form`.

    Upper bounds are exclusive, all are places: positions less that of the first.
    """
    fixed = score.row if moving == score.column else score.column
    own = form.get(build.index(moving), Fraction(0))
    along = form.get(build.index(fixed), Fraction(0))
    rest = {t: c for t, c in form.items() if t not in (build.index(moving), build.index(fixed))}
    if abs(own) != 1 or any(c.denominator != 1 for c in (along, *rest.values())):
        return None
    if any(t is not None and any(n.op in ("read", "index") or OPS[n.op].binding for n in walk(t)) for t in rest):
        return None
    total: Node = build.ZERO
    for term, c in rest.items():
        total = build.add(total, build.mul(build.const(int(c)), build.ONE if term is None else term))
    # own = -1: moving <= along * fixed + total; own = +1: moving >= -(along * fixed + total)
    upper = own < 0
    factor = int(along) if upper else -int(along)
    offset = total if upper else build.neg(total) if total is not build.ZERO else total
    # As places: the fixed index's position is its place and its shift, and the moving one's shift is taken off.
    offset = build.add(offset, build.mul(build.const(factor), score.shifts[fixed]))
    offset = build.sub(offset, score.shifts[moving])
    if upper:
        offset = build.add(offset, build.ONE)
    wide, narrow = (last, first) if (factor > 0) == upper else (first, last)
    return upper, _linear(score, factor, wide, offset), _linear(score, factor, narrow, offset)


def _linear(score: Score, factor: int, place: str, offset: Node) -> str:
    number = "" if offset is build.ZERO else score.number(offset)
    if factor == 0:
        return number or "0"
    text = place if factor == 1 else f"{factor} * {place}"
    if not number:
        return text
    return f"{text} - {number[1:]}" if number.startswith("-") else f"{text} + {number}"
