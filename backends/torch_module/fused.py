"""Sums of products as few operations: for steps on small tensors, where the price is the number of calls.

Architecture invariant: changes how a sum is added up, never its terms. Entry point: `added_products`.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.monomials import factors
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound

from . import expressions
from .context import Context
from .values import ATOM, PRODUCT, SUM, Value, merge, plain, spread


def added_products(ctx: Context, node: Node) -> Value | None:
    """A real sum with products a * b or x @ w in it, each added in one operation; None where there is nothing to gain."""
    if not _once(ctx, node, "add", again=True):
        return None
    base, terms = _mixture(ctx, _terms(ctx, node))
    rest: list[Node] = []
    products: list[tuple[Node, list[Value]]] = []
    matrices: list[tuple[Node, Value, Value, tuple[str, ...]]] = []
    for term in terms:
        found = _matrix(ctx, term)
        if found is not None:
            matrices.append((term, *found))
            continue
        parts = [plain(expressions.emit(ctx, n)) for n in term.args] if _once(ctx, term, "mul") else []
        if parts and not any(v.static or v.dtype != "real" for v in parts):
            products.append((term, parts))
        else:
            rest.append(term)
    if base is not None and rest or base is None and len(products) + len(matrices) + bool(rest) < 2:
        return None
    if base is None:
        if not rest and matrices:
            rest = [matrices.pop(0)[0]]
        elif not rest:  # the product with the widest factor, a state mostly: an outer product is better added to it
            widest = max(products, key=lambda p: max(len(v.dims) for v in p[1]))
            products.remove(widest)
            rest = [widest[0]]
        base = plain(expressions.emit(ctx, build.total(rest)))
        if base.static or base.dtype != "real":
            return None
    for _, parts in products:
        dims = ctx.ordered(merge((), base.dims, *(v.dims for v in parts)))
        base = Value(f"torch.addcmul({', '.join(spread(v, dims).text for v in (base, *parts))})", dims, "real")
    for _, rows, matrix, both in matrices:
        if set(base.dims) <= set(both):
            base = Value(f"torch.addmm({', '.join((spread(base, both).text, rows.text, matrix.text))})", both, "real")
        else:
            dims = ctx.ordered(merge((), base.dims, both))
            product = Value(f"{rows.at(PRODUCT)} @ {matrix.at(PRODUCT + 1)}", both, "real", PRODUCT)
            base = Value(f"{spread(base, dims).at(SUM)} + {spread(product, dims).at(SUM + 1)}", dims, "real", SUM)
    return base


def _matrix(ctx: Context, term: Node) -> tuple[Value, Value, tuple[str, ...]] | None:
    """A sum of products that is one of rows [B, n] with a matrix [n, m]: these two, and what it varies along."""
    if not _once(ctx, term, "sum") or term.args[1] is not build.TRUE or len(bound(term)) != 1:
        return None
    parts = factors(term.args[0])
    values = [expressions.emit(ctx, n) for n in parts] if len(parts) == 2 else []
    if not values or any(v.static or v.dtype != "real" or v.weight for v in values):
        return None
    (inner,) = bound(term)
    for rows, matrix in (values, values[::-1]):
        if len(rows.dims) == len(matrix.dims) == 2 and rows.dims[1] == inner and inner in matrix.dims:
            other = next((d for d in matrix.dims if d != inner), "")
            if other and other != rows.dims[0]:
                turned = matrix if matrix.dims[0] == inner else replace(matrix, text=f"{matrix.at(ATOM)}.T", level=ATOM)
                return rows, turned, (rows.dims[0], other)
    return None


def _mixture(ctx: Context, terms: list[Node]) -> tuple[Value | None, list[Node]]:
    """The terms (1 - a) b and a c, if they are among these, as one value from b to c; and the other terms."""
    for first in terms:
        for part, start in (first.args, first.args[::-1]) if _once(ctx, first, "mul") else ():
            weight = part.args[1] if part.op == "sub" and part.args[0] is build.ONE else None
            for second in terms if weight is not None else ():
                if second is first or not _once(ctx, second, "mul") or weight not in second.args:
                    continue
                end = second.args[1 - second.args.index(weight)]
                values = [plain(expressions.emit(ctx, n)) for n in (start, end, weight)]
                if not any(v.static or v.dtype != "real" for v in values):
                    dims = ctx.ordered(merge((), *(v.dims for v in values)))
                    text = f"torch.lerp({', '.join(spread(v, dims).text for v in values)})"
                    return Value(text, dims, "real"), [t for t in terms if t not in (first, second)]
    return None, terms


def _terms(ctx: Context, node: Node) -> list[Node]:
    """The terms of a sum, those of sums in it that nothing else wants among them."""
    return [t for n in node.args for t in (_terms(ctx, n) if _once(ctx, n, "add") else [n])]


def _once(ctx: Context, node: Node, op: str, *, again: bool = False) -> bool:
    """Is it such a real operation, and wanted here alone?"""
    alone = again or ctx.uses.get(node, 0) <= 1
    return node.op == op and node.dtype == "real" and node not in ctx.hoisted and alone
