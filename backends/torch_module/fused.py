"""Sums of products as few operations: for steps on small tensors, where the price is the number of calls.

Architecture invariant: changes how a sum is added up, never its terms. Entry point: `added_products`.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.node import Node

from . import expressions
from .context import Context
from .values import Value, merge, plain, spread


def added_products(ctx: Context, node: Node) -> Value | None:
    """A real sum with products a * b in it, each added in one operation; None where there is nothing to gain."""
    if not _once(ctx, node, "add", again=True):
        return None
    rest: list[Node] = []
    products: list[list[Value]] = []
    for term in _terms(ctx, node):
        parts = [plain(expressions.emit(ctx, n)) for n in term.args] if _once(ctx, term, "mul") else []
        if parts and not any(v.static or v.dtype != "real" for v in parts):
            products.append(parts)
        else:
            rest.append(term)
    if not products or not rest:
        return None
    base = plain(expressions.emit(ctx, build.total(rest)))
    if base.static or base.dtype != "real":
        return None
    for parts in products:
        dims = ctx.ordered(merge((), base.dims, *(v.dims for v in parts)))
        base = Value(f"torch.addcmul({', '.join(spread(v, dims).text for v in (base, *parts))})", dims, "real")
    return base


def _terms(ctx: Context, node: Node) -> list[Node]:
    """The terms of a sum, those of sums in it that nothing else wants among them."""
    return [t for n in node.args for t in (_terms(ctx, n) if _once(ctx, n, "add") else [n])]


def _once(ctx: Context, node: Node, op: str, *, again: bool = False) -> bool:
    """Is it such a real operation, and wanted here alone?"""
    alone = again or ctx.uses.get(node, 0) <= 1
    return node.op == op and node.dtype == "real" and node not in ctx.hoisted and alone
