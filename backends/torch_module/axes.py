"""Operators over axes: reductions, normalisers, transforms. Their axes come last, as `runtime` wants them.

The indices are put last before the body is written, so that an einsum gives them there and nothing is transposed.
"""

from __future__ import annotations

from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound, operand_axes, options

from . import expressions, intervals
from .context import Context
from .table import ALONG, MAPS, REDUCTIONS
from .taps import taps
from .values import Value, merge, plain, spread


def over_axes(ctx: Context, node: Node) -> Value:
    """A reduction, or an operator along axes: the axes come last."""
    names = bound(node)
    body_node, guard = node.args
    facts = build.conjuncts(guard)
    if intervals.is_product(node):
        with ctx.under(*facts):
            found = intervals.over_interval(ctx, node, [body_node], facts)
        if found is not None:
            return found
    before = ctx.order
    ctx.order = [d for d in before if d not in names] + list(names)
    with ctx.under(*facts):
        body = plain(expressions.emit(ctx, body_node))
    mask = expressions.condition(ctx, facts)
    whole = node.op in ("rank", "cumsum", "prod", "max", "min") and body.dtype in ("bool", "int")
    want = "bool" if node.op in ("any", "all") else "int" if whole else "real"
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
    dims = order if node.op in ALONG else outer
    return Value(text, dims, node.dtype, zero_outside=frozenset(facts) if node.op in ALONG else frozenset())


def transform(ctx: Context, node: Node) -> Value:
    """An operator from consumed axes to made ones: a transform, `solve`, `qr`, or taps of a matrix."""
    if node.op == "matrix_taps":
        return taps(ctx, node)
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
    return Value(f"{ctx.helper(MAPS[node.op])}({', '.join(texts)}, {n})", (*rest, *produced), node.dtype)
