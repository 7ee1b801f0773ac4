"""Operators over axes: reductions, normalisers, transforms. Their axes come last, as `runtime` wants them.

The indices are put last before the body is written, so that an einsum gives them there and nothing is transposed.
"""

from __future__ import annotations

from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound, operand_axes, options

from . import expressions
from .context import Context
from .table import ALONG, MAPS, REDUCTIONS
from .values import Value, merge, plain, spread


def over_axes(ctx: Context, node: Node) -> Value:
    """A reduction, or an operator along axes: the axes come last."""
    names = bound(node)
    body_node, guard = node.args
    facts = build.conjuncts(guard)
    before = ctx.order
    ctx.order = [d for d in before if d not in names] + list(names)
    with ctx.under(*facts):
        body = plain(expressions.emit(ctx, body_node))
    mask = expressions.condition(ctx, facts)
    boolean = node.op in ("any", "all")
    kept = node.op in ("max", "min") and node.dtype == "int"
    want = (
        "bool"
        if boolean
        else "int"
        if node.op in ("rank", "cumsum", "prod") and body.dtype in ("bool", "int")
        else "real"
    )
    body = body if body.dtype == "complex" else expressions.convert(ctx, body, want)
    body = expressions.spelled(ctx, body, names, want)
    outer = ctx.ordered(tuple(d for d in merge(body.dims, mask.dims if mask else ()) if d not in names))
    order = (*outer, *names)
    if mask is not None:
        mask = expressions.tensor(ctx, mask, "bool") if mask.static else mask
        mask = expressions.spelled(ctx, mask, names, "bool")
    body = spread(body, order)
    if len(body.text) > expressions.LONGEST - 20:
        body = ctx.bind(
            f"{ctx.current}_scores" if node.op in ("softmax", "logsumexp") else expressions.temporary(ctx, body_node),
            body,
        )
    masked = "None" if mask is None else spread(mask, order).text
    extra = "".join(f", {float(v)!r}" for k, v in options(node).items() if isinstance(v, int | float | Fraction))
    function = ctx.helper((REDUCTIONS | ALONG)[node.op])
    text = f"{function}({body.text}, {masked}, {len(names)}{extra})"
    ctx.order = before
    if kept:
        text += ".long()"
    dims = order if node.op in ALONG else outer
    return Value(text, dims, node.dtype, zero_outside=frozenset(facts) if node.op in ALONG else frozenset())


def transform(ctx: Context, node: Node) -> Value:
    produced, owns = node.attr[1], operand_axes(node)
    last = {d for own in owns for d in own}
    args = [plain(expressions.emit(ctx, a)) for a in node.args]
    kind = "complex" if node.op in ("ifft", "irfft") or any(a.dtype == "complex" for a in args) else "real"
    spelt = [
        expressions.spelled(ctx, expressions.convert(ctx, a, kind), own, kind)
        for a, own in zip(args, owns, strict=True)
    ]
    rest = ctx.ordered(tuple(d for a in spelt for d in a.dims if d not in last))
    texts = [spread(a, (*rest, *own)).text for a, own in zip(spelt, owns, strict=True)]
    n = ctx.length(produced[-1])
    if node.op == "matrix_taps":
        return _taps(ctx, node, rest, texts, n)
    return Value(f"{ctx.helper(MAPS[node.op])}({', '.join(texts)}, {n})", (*rest, *produced), node.dtype)


def _taps(ctx: Context, node: Node, rest: tuple[str, ...], texts: list[str], length: str) -> Value:
    """Components along several indices are one for the support function."""
    along = len(node.attr[0]) // 2
    if along > 1:
        ends = (along, 2 * along, along)
        texts = [f"{t}.flatten(-{n})" if n == along else f"{t}.flatten(-{n}, -{along + 1}).flatten(-{along})"
                 for t, n in zip(texts, ends, strict=True)]  # fmt: skip
    return Value(f"{ctx.support('matrix_taps')}({', '.join(texts)}, {length})", (*rest, *node.attr[1]), node.dtype)
