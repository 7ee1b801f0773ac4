"""What stands inside a loop, seen from within one of its steps: what the loop carries is given there.

At a step of `x[l,t,c] = x[l-1] + f(x[l-1])` over the depth l, x[l-1] is known. `opened` says so: reads that the loop
carries become reads of a stand-in, `x@earlier.l[l-1]`, a tensor without an equation, and what other steps read is an
output. No recurrence over l is left, l is one more lane, and a recurrence over t inside f is one like any other: what
analyses or rewrites recurrences needs to know nothing of nests. `closed` puts the tensors back for their stand-ins.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, dependences, sign
from seqdsl.ir.node import Node, read_names, rebuild_reads
from seqdsl.ir.order import difference
from seqdsl.ir.system import System, Tensor


def opened(system: System, loop: Loop) -> System:
    """The system as a step of the loop sees it."""
    changed = [replace(t, rhs=rhs) for t in map(system.tensors.__getitem__, loop.tensors()) if (rhs := _cut(system, loop, t))]
    wanted = {name for t in changed if t.rhs is not None for name in read_names(t.rhs)}
    stand_ins = []
    for name in loop.tensors():
        own, path = system.tensors[name], (name, loop.axis)
        stand_ins.append(Tensor(_stand_in(name, loop), own.indices, own.dtype, "given", edges=own.edges, path=path))
    outside = [n for n in loop.tensors() if _stand_in(n, loop) in wanted and n not in system.outputs]
    return replace(system.with_tensors(*stand_ins, *changed), outputs=(*system.outputs, *outside))


def closed(system: System, before: System, loop: Loop) -> System:
    """The tensors in place of their stand-ins, after a rewriting of what `opened` has made of the system `before`."""
    changed = []
    for tensor in system.tensors.values():
        rhs = None if tensor.rhs is None else as_written(tensor.rhs, loop)
        if rhs is not tensor.rhs:
            changed.append(replace(tensor, rhs=rhs))
    drop = tuple(_stand_in(name, loop) for name in loop.tensors())
    return replace(system.with_tensors(*changed, drop=drop), outputs=before.outputs)


def as_written(node: Node, loop: Loop) -> Node:
    """An expression with the tensors in place of their stand-ins."""
    stood_for = {_stand_in(name, loop): name for name in loop.tensors()}

    return rebuild_reads(node, stood_for, lambda n: build.read(stood_for[str(n.attr)], list(n.args), n.dtype))


def told(text: str) -> str:
    """A sentence about a system that was opened, for people."""
    return re.sub(r"@earlier\.\w+", "", text)


def _stand_in(name: str, loop: Loop) -> str:
    return f"{name}@earlier.{loop.axis}"


def _cut(system: System, loop: Loop, tensor: Tensor) -> Node | None:
    """The expression of a tensor with reads of stand-ins for those that the loop carries; None where it carries none.

    A read at a fixed distance shows it by its subscript. One that moves, as `S[m]` with m < l, is carried where all
    dependences on its tensor that are at no fixed distance are."""
    members = dict(loop.positions)
    index = build.index(tensor.indices[members[tensor.name]])
    moving: dict[str, set[int]] = {}
    for found in dependences(system, tensor, members):
        distance = found.along(loop.axis)
        if not isinstance(distance, int):
            moving.setdefault(found.tensor, set()).add(sign(distance, loop.reverse))

    def change(node: Node) -> Node | None:
        own = str(node.attr)
        gap = difference(node.args[members[own]], index)
        carried = gap.get(None, Fraction(0)) != 0 if set(gap) <= {None} else moving.get(own) == {1}
        return build.read(_stand_in(own, loop), list(node.args), node.dtype) if carried else None

    assert tensor.rhs is not None
    rhs = rebuild_reads(tensor.rhs, members, change)
    return rhs if rhs is not tensor.rhs else None
