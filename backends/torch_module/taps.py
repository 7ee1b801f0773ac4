"""Taps of a time-invariant state, c . A^l b. What they take of c and A is the same for every b, and computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seqdsl.forms.low_rank import diagonal_and_outers
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound, operand_axes

from . import expressions
from .context import Context
from .values import ATOM, Value, plain, with_ones


def taps(ctx: Context, node: Node) -> Value:
    """Along the one axis that `matrix_taps` makes; its real part is computed as such."""
    dtype = node.dtype
    node = node.args[0] if node.op == "re" else node
    (made,), (_, _, read) = node.attr[1], operand_axes(node)
    keys = [(name, node.args[0], node.args[1], node.attr) for name in ("rows", "powers")]
    if keys[0] not in ctx.caches[-1]:
        _add_rows(ctx, node, keys)
    rows, powers = (ctx.caches[-1][key] for key in keys)
    b = _spelt(ctx, node, node.args[2], read)
    lanes = ctx.ordered(tuple(d for d in (*rows.dims, *b.dims) if d not in read))
    texts = [rows.text, powers.text]
    if lanes != rows.dims:  # b has lanes alone
        at = "".join(":, " if d in rows.dims else "None, " for d in lanes) + "..."
        texts = [f"{rows.text}[{at}]", f"[tuple(x[{at}] for x in power) for power in {powers.text}]"]
    texts += [_joined(with_ones(b, (*lanes, *read)), len(read)), ctx.length(made), expressions.KINDS[dtype]]
    return Value(f"{ctx.support('matrix_taps')}({', '.join(texts)})", (*lanes, made), dtype)


def _add_rows(ctx: Context, node: Node, keys: Sequence[Any]) -> None:
    """The line that computes the rows and powers; their dimensions are the lanes of c and A."""
    kept, both, _ = operand_axes(node)
    c, count = _spelt(ctx, node, node.args[0], kept), len(kept)
    parts = _parts(node) if count == 1 else None
    if parts is None:
        operands = [c, _spelt(ctx, node, node.args[1], both)]
    else:
        operands = [c, *(_spelt(ctx, node, x, own) for x, own in parts)]
    lanes = ctx.ordered(tuple(d for x in operands for d in x.dims if d not in both))
    texts = [
        _joined(with_ones(x, (*lanes, *(d for d in both if d in x.dims))), count, twice=set(both) <= set(x.dims))
        for x in operands
    ]
    texts.insert(1, ctx.length(node.attr[1][0]))
    if parts is not None:
        half = 3 + (len(texts) - 3) // 2
        texts[3:] = [f"[{', '.join(side)}]" for side in (texts[3:half], texts[half:])]
    names = [ctx.names.fresh(f"{ctx.current if ctx.current.isidentifier() else 'taps'}_{k[0]}") for k in keys]
    ctx.block.add(f"{', '.join(names)} = {ctx.support('matrix_rows')}({', '.join(texts)})")
    for key, name in zip(keys, names, strict=True):
        ctx.caches[-1][key] = Value(name, lanes, node.dtype)


def _parts(node: Node) -> list[tuple[Node, tuple[str, ...]]] | None:
    """The diagonal of the matrix, its columns, and its rows, each with its index; None of a matrix that is full."""
    row, column = bound(node)
    found = diagonal_and_outers(node.args[1], row, column)
    if found is None or not found[1] or any(t.over for t in found[1]):
        return None
    diagonal, terms = found
    return [(diagonal, (row,)), *((t.left, (row,)) for t in terms), *((t.right, (column,)) for t in terms)]


def _spelt(ctx: Context, node: Node, operand: Node, own: tuple[str, ...]) -> Value:
    """An operand with its own axes among its dimensions."""
    kind = "complex" if any(a.dtype == "complex" for a in node.args) else "real"
    value = expressions.convert(ctx, plain(expressions.emit(ctx, operand)), kind)
    return expressions.spelled(ctx, value, own, kind)


def _joined(value: Value, count: int, twice: bool = False) -> str:
    """The operand with its components, along `count` indices, as one axis; a matrix has them twice."""
    if count == 1:
        return value.text
    first = f".flatten(-{2 * count}, -{count + 1})" if twice else ""
    return f"{value.at(ATOM)}{first}.flatten(-{count})"
