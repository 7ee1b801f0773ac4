"""Equality of two tensors of a system, proved (DERIVATIONS 6). In order: equal canonical forms; a bisimulation of their
recurrences; equal taps of two linear time-invariant systems; recurrences written as the sums that they are.

A proof is an identity of rational functions, of exponentials and of what else is opaque: it speaks of points where no
denominator is 0. That nothing was found proves nothing.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import Diagonal, NoMatch, diagonal
from seqdsl.algebra.bisimulation import Definitions, bisimulation, definitions
from seqdsl.algebra.equal import same, where_defined
from seqdsl.algebra.interval import is_everywhere
from seqdsl.algebra.taps import equal_taps
from seqdsl.algebra.verdict import Proved, Unknown, Verdict
from seqdsl.ir import build
from seqdsl.ir.dependence import recurrences
from seqdsl.ir.node import Node, rebuild, walk
from seqdsl.ir.system import Claim, System

LAW = "equality"


def prove_equal(system: System, claim: Claim) -> Verdict:
    """The two tensors of an equality: proved where algebra shows it. Unequal canonical forms prove nothing: Unknown."""
    system, (left, right) = assuming(system, claim.condition), claim.args
    known = definitions(system)
    a, b = (_side(known, n, system.tensors[left].indices) for n in (left, right))
    if a is None or b is None:
        return Unknown("the definitions are too long to be written out")
    where = where_defined(system, (a, b))
    if same(system, a, b):
        return Proved(LAW, f"symbolic identity: equal canonical forms, for all sizes{where}")
    for one, other in ((a, b), (b, a)):
        pairs = bisimulation(known, one, other)
        if pairs is not None:
            shown = ", ".join(p.describe() for p in pairs)
            return Proved(LAW, f"bisimulation: {shown} by induction over the steps, then equal canonical forms{where}")
    taps = equal_taps(system, left, right)
    if taps is not None:
        return Proved(LAW, f"both are linear and time-invariant, of {taps} states together: equal first {taps + 1} taps{where}")
    summed = [_summed(known, x) for x in (a, b)]
    if (summed[0] is not a or summed[1] is not b) and same(system, *summed):
        how = f"recurrences written as the sums that they are, then equal canonical forms, for all sizes{where}"
        return Proved(LAW, how)
    return Unknown("unequal canonical forms, which prove nothing")


def _side(known: Definitions, name: str, indices: tuple[str, ...]) -> Node | None:
    """A side written out, over the indices of the left one."""
    tensor = known.system.tensors[name]
    rhs = tensor.rhs
    if rhs is None or name in known.kept:
        rhs = build.read(name, [build.index(i) for i in tensor.indices], tensor.dtype)
    out = known.written_out(rhs)
    names = {j: build.index(i) for i, j in zip(indices, tensor.indices, strict=True)}
    return out if out is None or not build.can_substitute(out, {}) else build.substitute(out, names)


def assuming(system: System, condition: Node | None) -> System:
    """The system under the conjuncts `a == constant` of a condition: reads of a are that constant."""
    values: dict[str, Node] = {}
    for fact in build.conjuncts(condition) if condition is not None else ():
        if fact.op == "eq" and is_everywhere(system, fact.args[0]) and build.value_of(fact.args[1]) is not None:
            if system.tensors[str(fact.args[0].attr)].kind == "input":
                values[str(fact.args[0].attr)] = fact.args[1]
    if not values:
        return system

    def change(node: Node) -> Node | None:
        known = node.op == "read" and node.attr in values and system.is_inside(node)  # elsewhere it reads 0
        return values[str(node.attr)] if known else None

    changed = [replace(t, rhs=rebuild(t.rhs, change)) for t in system.derived() if t.rhs is not None]
    return system.with_tensors(*changed)


def _summed(known: Definitions, node: Node) -> Node:
    """Reads of entrywise states that start at 0 as sums over the steps: S[t] = sum[s | s <= t] decay(s to t) write[s].

    The decay from s to t is a power where it does not change with time, and else the exponential of the difference of
    two running sums of its logarithm.
    """
    sums: dict[str, tuple[tuple[str, ...], Node]] = {}
    for loop in recurrences(known.system):
        try:
            states = diagonal(known.system, loop)
        except (NoMatch, AssertionError):
            continue
        for state in states:
            total = _sum_of(known, state)
            if total is not None:
                sums[state.update.state.name] = (state.update.state.indices, total)

    def change(n: Node) -> Node | None:
        if n.op != "read" or n.attr not in sums:
            return None
        indices, total = sums[str(n.attr)]
        at = dict(zip(indices, n.args, strict=True))
        return build.substitute(total, at) if build.can_substitute(total, at) else None

    for _ in range(len(sums)):  # a state may write another
        opened = known.written_out(rebuild(node, change))
        if opened is None or opened is node:
            break
        node = opened
    return node


def _sum_of(known: Definitions, state: Diagonal) -> Node | None:
    update, decay = state.update, state.decay
    time = update.time
    if update.state.edges or update.step != -1:
        return None
    decay_out, write = (known.written_out(x) for x in (decay, state.write))
    log_decay = None if state.log_decay is None else known.written_out(state.log_decay)
    taken = {*decay.free, *state.write.free, time}
    earlier = build.fresh(time + "'", taken)
    s, t = build.index(earlier), build.index(time)
    if log_decay is not None and any(n.attr == "inf" for n in walk(log_decay)):
        log_decay = None  # a reset: differences of running sums would not see it
    if write is None or decay_out is None or not build.can_substitute(write, {time: s}):
        return None
    if decay_out is build.ONE:
        weight = build.ONE
    elif time not in decay_out.free:
        weight = build.make("pow", decay_out, build.sub(t, s))
    elif log_decay is not None and build.can_substitute(log_decay, {time: s}):
        weight = build.make("exp", build.sub(_running(log_decay, time, t), _running(log_decay, time, s)))
    else:
        return None
    body = build.mul(weight, build.substitute(write, {time: s}))
    return build.reduce("sum", (earlier,), body, build.make("le", s, t))


def _running(log_decay: Node, time: str, end: Node) -> Node:
    """sum[j | j <= end] log_decay[j]"""
    name = build.fresh(time + "''", {*log_decay.free, *end.free})
    j = build.index(name)
    return build.reduce("sum", (name,), build.substitute(log_decay, {time: j}), build.make("le", j, end))
