"""Operators that kernels have no text for, written through those that they have: norms through sums, small powers as
products. The identities are the compiler's own (`seqdsl.algebra.expand`), but for exponentials, which take the largest
operand away first. Entry points: `through_sums`, `multiplied`.
"""

from __future__ import annotations

from collections.abc import Iterable

from seqdsl.algebra.expand import EXPAND
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound, remake

SUMS = ("mean", "rms_norm", "layer_norm", "l2_norm")
SHIFTED = ("softmax", "logsumexp")
POWERS = range(1, 9)


def multiplied(node: Node, leaves: Iterable[Node] = ()) -> Node:
    """Small powers as products."""
    if node in leaves or not node.args or node.op == "read":
        return node
    args = tuple(multiplied(a, leaves) for a in node.args)
    if node.op == "pow" and isinstance(power := build.value_of(args[1]), int) and power in POWERS:
        return build.product([args[0]] * power)
    return node if args == node.args else remake(node, args)


def through_sums(node: Node) -> Node:
    """An expression with sums in the place of norms, and of exponentials that are normalised."""
    if node.op == "read" or not node.args:
        return node
    args = tuple(through_sums(a) for a in node.args)
    node = node if args == node.args else remake(node, args)
    if node.op in SUMS:
        return through_sums(EXPAND[node.op](node))
    if node.op not in SHIFTED:
        return node
    x, guard = node.args
    top = build.make("stop", build.reduce("max", bound(node), x, guard))
    weights = build.make("exp", build.sub(x, top))
    total = build.reduce("sum", bound(node), weights, guard)
    return build.div(weights, total) if node.op == "softmax" else build.add(top, build.make("log", total))
