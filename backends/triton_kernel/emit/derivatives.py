"""Gradients of the leaves of elementwise expressions, by the compiler's own derivatives (`seqdsl.ir.derivatives`).

Entry point: `pulled`.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.derivatives import ELEMENTWISE, STOPS
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound


class Refused(Exception):
    """What no kernel is written for; the message is for people."""


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
        if node.op not in ELEMENTWISE:
            raise Refused(f"the derivative of `{node.op}`")
        for arg, part in zip(node.args, ELEMENTWISE[node.op](node, known[node]), strict=True):
            if part is not None and arg in depends and arg.dtype == "real":
                send(arg, part)
    return {leaf: known[leaf] for leaf in leaves if leaf in known}


def _dependents(whole: Node, leaves: set[Node]) -> set[Node]:
    found = set(leaves)
    for node in walk(whole):
        if any(a in found for a in node.args):
            found.add(node)
    return found
