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
    the others between. `packed` are those that set them for packed sequences. `left` says whether a bound cuts on that
    side; without `inner` every block is masked."""

    lines: list[str]
    packed: list[str]
    left: bool
    inner: bool


def block_range(score: Score, moving: str, size: str, width: str, first: str, last: str, sequence: str = "") -> Range:
    """The range of `moving` for a block whose first and last rows (of the other index) are these texts; `sequence` is the
    text of what a kernel is told of the packed one of a place."""
    lows, highs, others = _bounds(score, moving, first, last)
    inner = not others
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
    return Range(lines, _packed_range(score, moving, width, first, last, sequence, inner), bool(lows) and inner, inner)


def _packed_range(score: Score, moving: str, width: str, first: str, last: str, sequence: str, inner: bool) -> list[str]:
    """The same lines for a block of packed rows: from the sequence of the first to that of the last, each bounded by those
    of its positions that the block has. Blocks are counted from where the first one begins; only where it is the last one
    too need pairs not be masked."""
    lows, highs, _ = _bounds(score, moving, "at", "until")
    low, whole = (_extreme([b[k] for b in lows[1:]], "tl.maximum", lows[0][k] if lows else "") for k in (0, 1))
    high, whole_end = (_extreme([b[k] for b in highs[1:]], "tl.minimum", highs[0][k] if highs else "") for k in (0, 1))
    lines = [f"at, until, zero, low, high, sequence = {sequence.format(first)}"]
    lines.append(f"begin = tl.minimum(tl.maximum(zero + {low}, low), high)" if lows else "begin = low")
    if inner:
        lines.append(f"whole = zero + {whole}" if lows else "whole = begin")
        lines.append(f"whole_end = zero + {whole_end}" if highs else "whole_end = high")
    lines.append(f"at, until, zero, low, high, last_sequence = {sequence.format(last)}")
    lines.append(f"end = tl.minimum(tl.maximum(zero + {high}, low), high)" if highs else "end = high")
    if inner:
        lines.append(f"whole_end = begin + tl.maximum(tl.minimum(whole_end, end) - begin, 0) // {width} * {width}")
        if lows:
            lines.append(f"whole = tl.minimum(begin + tl.cdiv(tl.maximum(whole - begin, 0), {width}) * {width}, end)")
            lines.append("whole_end = tl.maximum(whole, whole_end)")
            lines.append("whole = tl.where(sequence == last_sequence, whole, begin)")
        lines.append("whole_end = tl.where(sequence == last_sequence, whole_end, begin)")
    return lines


def limits(score: Score, moving: str, at: str) -> tuple[list[str], list[str], list[Node]]:
    """What bounds the positions of `moving` from below, and from above, for the one at a position of the other index; and
    the facts that say something else."""
    lows, highs, others = _bounds(score, moving, at, at)
    return [low for low, _ in lows], [high for high, _ in highs], others


def _bounds(
    score: Score, moving: str, first: str, last: str
) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[Node]]:
    """Of `moving`, lower and upper bounds, as positions: each for what is visited, and for what is whole; and the facts that
    are more than that."""
    lows: list[tuple[str, str]] = []
    highs: list[tuple[str, str]] = []
    others: list[Node] = []
    for fact in score.facts:
        found = [_bound(score, form, moving, first, last) for form in slacks(fact)]
        if not found or None in found:
            others.append(fact)
        for bound in [b for b in found if b is not None]:
            (highs if bound[0] else lows).append(bound[1:])
    return lows, highs, others


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
