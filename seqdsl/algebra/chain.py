"""Micro-steps that are written out: a step of time as a chain of maps, `P1 = f1(S[t-1]), P2 = f2(P1), .., S = fn(..)`.

Each link is affine in the link before it, and reads of it are not written out further: n links with an inner read each,
put into one another, would be 2^n - 1 low-rank terms. The step is the composition of the links, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.algebra.affine import NoMatch, Term, Update, split_update
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop
from seqdsl.ir.node import Node, reads, rebuild_reads
from seqdsl.ir.system import System, Tensor


@dataclass(frozen=True)
class Link:
    """One map: the update of a tensor, its linear terms in the link before, and its write."""

    update: Update
    terms: tuple[Term, ...]
    rest: Node

    @property
    def contracts(self) -> bool:
        """Does it read the link before through a sum?"""
        return any(t.over for t in self.terms)


def chained(system: System, loop: Loop) -> list[Link] | None:
    """The links of a step, the last one the state's own; None unless several of them contract the link before."""
    if loop.reverse or any(not isinstance(s, Compute) for s in loop.body):
        return None
    carried = _carried(system, loop)
    if carried is None:
        return None
    members, source = dict(loop.positions), carried
    opened: dict[str, Node] = {}
    links: list[Link] = []
    for step in loop.body:
        assert isinstance(step, Compute)
        tensor = system.tensors[step.tensor]
        rhs = _opened(system, tensor, opened)
        if rhs is None:
            return None
        if tensor.indices != carried.indices:
            opened[tensor.name] = rhs
            continue
        link = _link(system, tensor, members[tensor.name], rhs, source, set(members))
        if link is None:
            return None
        links.append(link)
        source = tensor
    whole = source is carried and sum(link.contracts for link in links) > 1
    return links if whole else None


def _carried(system: System, loop: Loop) -> Tensor | None:
    """The one tensor that is read at the step before; None where there are others, or other steps."""
    members = dict(loop.positions)
    found = set()
    for name, position in members.items():
        tensor = system.tensors[name]
        here = build.index(tensor.indices[position])
        for read in reads(tensor.rhs) if tensor.rhs is not None else ():
            if read.attr in members:
                subscript = read.args[members[str(read.attr)]]
                if subscript is build.sub(here, build.ONE):
                    found.add(str(read.attr))
                elif subscript is not here:
                    return None
    return system.tensors[found.pop()] if len(found) == 1 else None


def _opened(system: System, tensor: Tensor, opened: dict[str, Node]) -> Node | None:
    """The right side with what is no link, a read of one through a sum, written out."""
    safe = True

    def change(node: Node) -> Node | None:
        nonlocal safe
        at = dict(zip(system.tensors[str(node.attr)].indices, node.args, strict=True))
        if not build.can_substitute(opened[str(node.attr)], at):
            safe = False
            return None
        return build.substitute(opened[str(node.attr)], at)

    assert tensor.rhs is not None
    rhs = rebuild_reads(tensor.rhs, opened, change)
    return rhs if safe else None


def _link(system: System, tensor: Tensor, position: int, rhs: Node, source: Tensor, members: set[str]) -> Link | None:
    """The map from the link before to this one; None where it reads another, or is not affine."""
    if {str(r.attr) for r in reads(rhs)} & members != {source.name}:
        return None
    try:
        terms, rest = split_update(system, rhs, (source.name,))
    except NoMatch:
        return None
    return Link(Update(tensor, tensor.indices[position], position, -1, rhs), tuple(terms), rest)
