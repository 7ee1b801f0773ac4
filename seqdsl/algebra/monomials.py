"""Sums of products as lists: for each product its factors, and the indices that it is summed over."""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.dependence import build_not
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound


def factors(node: Node) -> list[Node]:
    """The factors of a product, signs and divisors included (as factors of their own)."""
    if node.op == "mul":
        return factors(node.args[0]) + factors(node.args[1])
    if node.op == "neg":
        return [build.const(-1), *factors(node.args[0])]
    if node.op == "div":
        return [*factors(node.args[0]), build.div(build.const(build.Fraction(1)), node.args[1])]
    return [node]


def opened(factor: Node) -> list[Node]:
    """A sum without the factors that it has no index of, and those: `sum[m] (b[m] * u)` is u times a sum without u."""
    if factor.op != "sum" or factor.args[1] is not build.TRUE:
        return [factor]
    own = set(bound(factor))
    inside, outside = ([f for f in factors(factor.args[0]) if bool(f.free & own) is there] for there in (True, False))
    if not inside or not outside:
        return [factor]
    return [*outside, build.reduce("sum", bound(factor), build.product(inside))]


Monomial = tuple[list[Node], tuple[str, ...]]


def monomials(node: Node, avoid: frozenset[str] = frozenset(), rows: frozenset[str] | None = None) -> list[Monomial]:
    """A sum of products: for each product its factors and the indices it is summed over (unguarded sums only).

    Summed indices get fresh names, so that a product may be moved to where `avoid` and the old names mean something.
    With `rows`, only the sums that tie what varies along the rows to what does not stay open: in
    `sum[j] (x[j] * w[j]) * k[rows]` the sum is one factor, and not a rank of the write.
    """
    taken = {*avoid, *(i for n in walk(node) for i in n.free)}
    found = _monomials(node, taken)
    return found if rows is None else [_closed(parts, over, rows) for parts, over in found]


def _closed(parts: list[Node], over: tuple[str, ...], rows: frozenset[str]) -> Monomial:
    """The sums whose factors are all along the rows, or all not, as factors again."""
    left = [f for f in parts if f.free & rows]
    right = [f for f in parts if not f.free & rows]
    tied = {i for i in over if any(i in f.free for f in left) and any(i in f.free for f in right)}
    if len(tied) == len(over):
        return parts, over
    done: list[Node] = []
    for side in (left, right):
        own = tuple(i for i in over if i not in tied and any(i in f.free for f in side))
        summed = [f for f in side if f.free & set(own)]
        done += [f for f in side if not f.free & set(own)]
        done += [build.reduce("sum", own, build.product(summed))] if own else []
    alone = [i for i in over if not any(i in f.free for f in parts)]
    return [*done, *(build.size(i) for i in alone)], tuple(i for i in over if i in tied)


def _monomials(node: Node, taken: set[str]) -> list[Monomial]:
    if node is build.ZERO:
        return []
    if node.op in ("add", "sub"):
        left, right = (_monomials(a, taken) for a in node.args)
        return left + [([build.const(-1), *f], o) for f, o in right] if node.op == "sub" else left + right
    if node.op == "neg":
        return [([build.const(-1), *f], o) for f, o in _monomials(node.args[0], taken)]
    if node.op == "where":
        condition, yes, no = node.args
        return _chosen(condition, yes, taken) + _chosen(build_not(condition), no, taken)
    if node.op == "sum" and node.args[1] is build.TRUE:
        names = {}
        for name in bound(node):
            names[name] = build.fresh(name + "'", taken)
            taken.add(names[name])
        body = build.rename_here(node, names).args[0]
        return [(f, (*names.values(), *o)) for f, o in _monomials(body, taken)]
    if node.op == "mul":
        left, right = (_monomials(a, taken) for a in node.args)
        return [([*f, *g], (*o, *p)) for f, o in left for g, p in right]
    return [(factors(node), ())]


def _chosen(condition: Node, node: Node, taken: set[str]) -> list[Monomial]:
    """`where(condition, node, 0)`: a condition may stand at every factor, and must, lest 0 meets a NaN."""
    found = []
    for parts, over in _monomials(node, taken):
        chosen = [f if build.value_of(f) is not None else build.where(condition, f, build.ZERO) for f in parts]
        bare = all(build.value_of(f) is not None for f in parts)
        found.append(([*chosen, build.where(condition, build.ONE, build.ZERO)] if bare else chosen, over))
    return found
