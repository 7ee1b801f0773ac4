"""What a recurrence computes beside its states, written out where others read it."""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import apart, states_and_updates, uses
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop
from seqdsl.ir.node import Node, rebuild_reads, walk
from seqdsl.ir.ops import OPS
from seqdsl.ir.system import System


def without_auxiliaries(system: System, loop: Loop) -> System:
    """What others read of a recurrence as reads of its states alone: a tensor of the same step, `U[t] = S[t-1] * a`, is
    written out in its readers, so that a form that replaces the states finds every read of them. One that contracts a
    state is a read of its own, and stays."""
    states = {u.state.name for u in states_and_updates(system, loop)}
    members = dict(loop.positions)
    inlined: dict[str, Node] = {}

    def written_out(node: Node) -> Node | None:
        own = system.tensors[str(node.attr)]
        if node.args[members[own.name]].op != "index":
            return None  # outside the axis it would be 0, and its expression need not be
        at = dict(zip(own.indices, node.args, strict=True))
        return build.substitute(inlined[own.name], at) if build.can_substitute(inlined[own.name], at) else None

    changed = {}
    order = [s.tensor for s in loop.body if isinstance(s, Compute)]
    for name in [*order, *(t.name for t in system.derived() if t.name not in members)]:
        tensor = system.tensors[name]
        if name in states or tensor.rhs is None:
            continue
        uses_some = uses(tensor.rhs, set(inlined))
        rhs = rebuild_reads(apart(tensor.rhs), inlined, written_out) if uses_some else tensor.rhs
        if name in members and not tensor.edges and not contracts(rhs, states):
            inlined[name] = rhs
        elif rhs is not tensor.rhs:
            changed[name] = replace(tensor, rhs=rhs)
    return system.with_tensors(*changed.values()) if changed else system


def contracts(node: Node, states: set[str]) -> bool:
    """Is one of the states read through a sum?"""
    return any(OPS[n.op].binding == "reduce" and uses(n, states) for n in walk(node))
