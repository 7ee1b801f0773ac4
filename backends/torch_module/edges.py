"""What lies beside an axis: the values of base cases just before it and just after, and zeros where there are none.

It knows nothing of states (`history` does). Entry points: `beside`, `edges_before`, `edge_value`.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.system import Edge

from . import expressions, reads
from .context import Context, Source
from .sizes import size_value
from .values import ATOM, BATCH, SUM, Value


def beside(ctx: Context, source: Source, k: int, value: Value, edge: Edge, *, before: bool) -> Value:
    """The tensor with the edge's values just before, or just after, the axis."""
    own = [i for j, i in enumerate(source.own) if j != k]
    slots = [f"@{j}" for j in range(len(source.own)) if j != k]
    dim = value.dims.index(f"@{k}")
    other = edge_value(ctx, source, edge, k)
    names = dict(zip(own, slots, strict=True))
    other = replace(other, dims=tuple(names.get(d, d) for d in other.dims))
    missing = [d for d in other.dims if d not in value.dims]
    order = tuple([d for d in missing if d == BATCH] + list(value.dims) + [d for d in missing if d != BATCH])
    dim = order.index(f"@{k}")
    wide = _wide(ctx, value, order, source)
    side = _wide(ctx, expressions.convert(ctx, other, value.dtype), tuple(d for d in order if d != f"@{k}"), source)
    piece = f"{side.at(ATOM)}.unsqueeze({dim})"
    parts = f"{piece}, {wide.text}" if before else f"{wide.text}, {piece}"
    return Value(f"{ctx.helper('_join')}([{parts}], {dim})", order, value.dtype)


def _wide(ctx: Context, value: Value, order: tuple[str, ...], source: Source) -> Value:
    """All of `order`, of length 1 where the value does not vary (`_join` broadcasts)."""
    if value.static:
        value = expressions.tensor(ctx, value, value.dtype)
    if value.dims == order:
        return value
    kept = [d for d in order if d in value.dims]
    text = value.at(ATOM)
    places = [value.dims.index(d) for d in kept]
    if places != sorted(places):
        text = f"{text}.permute({', '.join(map(str, places))})"
    slots = ", ".join(":" if d in value.dims else "None" for d in order)
    return replace(value, text=f"{text}[{slots}]" if slots else text, dims=order, level=ATOM)


def edge_value(ctx: Context, source: Source, edge: Edge, k: int) -> Value:
    """The edge's tensor at its own indices (at the loops' positions where loops hold them)."""
    target = ctx.system.tensors[edge.tensor]
    if source.node is None:
        subscripts = [build.index(n) for j, n in enumerate(source.own) if j != k]
    else:
        names = iter(source.own)
        subscripts = []
        for j, a in enumerate(source.node.args):
            if j in source.keys:
                subscripts.append(a)
            else:
                subscripts.append(build.index(next(names)))
        position = [j for j in range(len(source.node.args)) if j not in source.keys][k]
        del subscripts[position]
    with ctx.guarded(()):
        return reads.read(ctx, build.read(target.name, subscripts, target.dtype))


def edges_before(ctx: Context, source: Source, k: int, dtype: str, tail: Node) -> str:
    """As many entries as a state holds: the edges at -1, -2 and so on, zeros between and before them; "" without any."""
    kept, count = build.value_of(tail), size_value(ctx, tail).at(SUM)
    points = {p: e for e in source.edges if e.position == k and isinstance(p := build.value_of(e.point), int) and p < 0}
    points = {p: e for p, e in points.items() if not isinstance(kept, int) or -p <= kept}
    if not points:
        return ""
    order = tuple(source.own) if not ctx.batched else (BATCH, *source.own)
    dim, one = order.index(source.own[k]), tuple(d for d in order if d != source.own[k])
    pieces, end = [], min(points)
    for point in sorted(points):
        edge = expressions.convert(ctx, edge_value(ctx, source, points[point], k), dtype)
        pieces += [nothing(ctx, source, k, dtype, str(point - end))] * (point > end)
        pieces += [f"{expressions.full(ctx, edge, one, dtype).at(ATOM)}.unsqueeze({dim})"]
        end = point + 1
    pieces += [nothing(ctx, source, k, dtype, str(-end))] * (end < 0)
    if kept is None and min(points) < -1:  # the state may hold fewer: an option says how many
        return f"{ctx.helper('_last')}({ctx.helper('_join')}([{', '.join(pieces)}], {dim}), {dim}, {count})"
    if kept != -min(points):
        pieces = [nothing(ctx, source, k, dtype, f"{count} - {-min(points)}"), *pieces]
    return pieces[0] if len(pieces) == 1 else f"{ctx.helper('_join')}([{', '.join(pieces)}], {dim})"


def nothing(ctx: Context, source: Source, k: int, dtype: str, count: str) -> str:
    """Zeros, so many along dimension k."""
    order = tuple(source.own) if not ctx.batched else (BATCH, *source.own)
    shape = ", ".join(count if d == source.own[k] else ctx.dim_text(d) for d in order)
    return f"torch.zeros({shape}, dtype={expressions.KINDS[dtype]}, device=device)"
