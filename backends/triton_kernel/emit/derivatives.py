"""Gradients of the leaves of elementwise expressions, by the compiler's own derivatives (`seqdsl.ir.derivatives`).

Where an operator has no one derivative, kernels take what PyTorch's own takes, so that a module's gradient is the same on
every device: of two equal operands each gets half. Entry point: `pulled`.
"""

from __future__ import annotations

from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.derivatives import ELEMENTWISE, STOPS, Row
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound


class Refused(Exception):
    """What no kernel is written for; the message is for people."""


def _chosen(node: Node, c: Node) -> tuple[Node, Node]:
    """The cotangent to the operand that is the larger or the smaller one; half of it to each of two equal ones."""
    a, b = node.args
    half = build.where(build.make("eq", a, b), build.mul(build.const(Fraction(1, 2)), c), build.ZERO)
    first, second = build.make("lt", b, a), build.make("lt", a, b)
    if node.op == "minimum":
        first, second = second, first
    return build.where(first, c, half), build.where(second, c, half)


def _log_add(node: Node, c: Node) -> tuple[Node, Node]:
    """Shares of the sum; none where both operands are -inf."""
    a, b = node.args
    nothing = build.make("eq", build.make("maximum", a, b), build.neg(build.const("inf")))
    shares = [build.make("sigmoid", build.sub(x, y)) for x, y in ((a, b), (b, a))]
    first, second = (build.where(nothing, build.ZERO, build.mul(c, share)) for share in shares)
    return first, second


DERIVATIVES: dict[str, Row] = {**ELEMENTWISE, "maximum": _chosen, "minimum": _chosen, "logaddexp": _log_add}


def pulled(roots: list[tuple[Node, Node]], leaves: set[Node], whole: tuple[str, ...] = ()) -> dict[Node, Node]:
    """The cotangents of leaves, from those of some expressions of them. Raises `Refused`.

    Sums over the indices `whole` may stand in the expressions; a cotangent varies along none of them that its node does
    not vary along. Along other indices it may: what it is summed over in the end is for the caller."""
    every = roots[0][0]
    for root, _ in roots[1:]:
        every = build.make("add", every, root)
    known: dict[Node, Node] = {}

    def send(node: Node, part: Node) -> None:
        part = build.reduce("sum", [i for i in whole if i in part.free and i not in node.free], part)
        known[node] = build.add(known[node], part) if node in known else part

    for root, cotangent in roots:
        send(root, cotangent)
    depends = _dependents(every, leaves)
    for node in reversed(list(walk(every))):
        if node not in known or node in leaves or node not in depends or node.op in STOPS:
            continue
        if node.op == "sum" and set(bound(node)) <= set(whole):
            send(node.args[0], build.where(node.args[1], known[node], build.ZERO))
            continue
        if node.op not in DERIVATIVES:
            raise Refused(f"the derivative of `{node.op}`")
        for arg, part in zip(node.args, DERIVATIVES[node.op](node, known[node]), strict=True):
            if part is not None and arg in depends and arg.dtype == "real":
                send(arg, part)
    return {leaf: known[leaf] for leaf in leaves if leaf in known}


def _dependents(whole: Node, leaves: set[Node]) -> set[Node]:
    found = set(leaves)
    for node in walk(whole):
        if any(a in found for a in node.args):
            found.add(node)
    return found
