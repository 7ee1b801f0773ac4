"""What stands inside a loop, seen from within one of its steps: what the loop carries is given there.

At a step of `x[l,t,c] = x[l-1] + f(x[l-1])` over the depth l, x[l-1] is known. `opened` says so: reads that the loop
carries become reads of a stand-in, `x@earlier.l[l-1]`, a tensor without an equation. No recurrence over l is left, l is one
more lane, and a recurrence over t inside f is one like any other: what analyses or rewrites recurrences needs to know
nothing of nests. `closed` puts the tensors back in place of their stand-ins.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, dependences, sign
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.order import difference
from seqdsl.ir.system import System, Tensor


def opened(system: System, loop: Loop) -> System:
    """The system as a step of the loop sees it."""
    members = dict(loop.positions)
    changed: dict[str, Tensor] = {}
    for name in members:
        tensor = system.tensors[name]
        assert tensor.rhs is not None
        signs: dict[str, set[int]] = {}
        for found in dependences(system, tensor):
            if found.tensor in members:
                signs.setdefault(found.tensor, set()).add(sign(found.along(loop.axis), loop.reverse))
        always = {n for n, found in signs.items() if found == {1}}
        index = build.index(tensor.indices[members[name]])

        def cut(node: Node, always: set[str] = always, index: Node = index) -> Node | None:
            if node.op != "read" or node.attr not in members:
                return None
            own = str(node.attr)
            if own not in always and not _apart(node.args[members[own]], index):
                return None
            return build.read(_stand_in(own, loop.axis), list(node.args), node.dtype)

        rhs = rebuild(tensor.rhs, cut)
        if rhs is not tensor.rhs:
            changed[name] = replace(tensor, rhs=rhs)
    stand_ins = []
    for name in members:
        own, path = system.tensors[name], (name, loop.axis)
        stand_ins.append(Tensor(_stand_in(name, loop.axis), own.indices, own.dtype, "given", edges=own.edges, path=path))
    return system.with_tensors(*stand_ins, *changed.values())


def _stand_in(name: str, axis: str) -> str:
    return f"{name}@earlier.{axis}"


def _apart(subscript: Node, index: Node) -> bool:
    """Is it another step of the loop, by a known distance?"""
    gap = difference(subscript, index)
    return set(gap) <= {None} and gap.get(None, Fraction(0)) != 0


def closed(system: System, loop: Loop) -> System:
    """The tensors in place of their stand-ins, of one loop."""
    given = [t for t in system.tensors.values() if t.kind == "given"]
    stood_for = {t.name: t.path[0] for t in given if t.path[1] == loop.axis}

    def back(node: Node) -> Node | None:
        if node.op != "read" or node.attr not in stood_for:
            return None
        return build.read(stood_for[str(node.attr)], list(node.args), node.dtype)

    changed = [replace(t, rhs=rebuild(t.rhs, back)) for t in system.tensors.values() if t.rhs is not None]
    return system.with_tensors(*changed, drop=tuple(stood_for))
