"""Values that nobody asks for are not computed: they may overflow, and a gradient of 0 times infinity is no number.

In `w[t,s] = exp(G - G[s])` with `o[t] = sum[s | s <= t] w * v[s]` the weights after t are growths of any size, and no one
reads them; so it is with `r = sqrt(x)` in `where(x > 0, r, 0)`. Written in one equation, the guard keeps them from being
evaluated (rules 11 and 17). Given names they are equations of their own, over all points: what all readers ask under is
made the equation's guard. It changes no value that is read, so every form may use it. Entry point: `only_where_asked`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, schedule, unshadowed
from seqdsl.ir.node import Node, read_names, walk
from seqdsl.ir.ops import OPS
from seqdsl.ir.system import System, Tensor, folds, monoid_reads, sources

Facts = tuple[Node, ...]

# Operators whose value or slope may be infinite at a finite number.
UNBOUNDED = frozenset({"exp", "expm1", "log", "log1p", "sqrt", "inv_softplus", "div", "pow"})


def only_where_asked(system: System) -> System:
    """Each equation that may be infinite, under the conditions that all its readers share."""
    if not any(t.rhs is not None and _may_overflow(t.rhs) for t in system.derived()):
        return system
    for name, facts in _asked(system).items():
        tensor = system.tensors[name]
        assert tensor.rhs is not None
        known = build.conjuncts(tensor.rhs.args[0]) if tensor.rhs.op == "where" else []
        new = [f for f in facts if f not in known and not _depends(system, f, name)]
        if new and _may_overflow(tensor.rhs):
            zero = build.const(build.Fraction(0))
            system = system.with_tensors(replace(tensor, rhs=build.where(reduce(build.both, new), tensor.rhs, zero)))
    return system


def _may_overflow(rhs: Node) -> bool:
    """Is there a slope to come out wrong, and an operator that may be infinite?"""
    inner = [*walk(rhs)]
    slopes = any(n.op == "read" and n.dtype in ("real", "complex") for n in inner)
    return slopes and any(n.op in UNBOUNDED and _varies(n.args[-1]) for n in inner)


def _varies(node: Node) -> bool:
    """Does it read tensors or positions? A divisor or an exponent that is a number or a size is harmless."""
    return any(n.op in ("read", "index") for n in walk(node))


def _asked(system: System) -> dict[str, Facts]:
    """What holds at every read of each tensor, in its own indices. An output and a state are asked for everywhere."""
    reads: dict[str, list[Facts]] = {name: [()] for name in system.outputs}
    found: dict[str, Facts] = {}
    for part in reversed(schedule(system)):
        names = (part.tensor,) if isinstance(part, Compute) else part.tensors()
        for name in names:
            tensor = system.tensors[name]
            uses = reads.get(name, [()]) if isinstance(part, Compute) and not tensor.edges else [()]
            found[name] = tuple(f for f in uses[0] if all(f in other for other in uses))
            for edge in tensor.edges:
                reads.setdefault(edge.tensor, []).append(())
            for fold in folds(tensor.rhs):
                for inner in monoid_reads(system.monoids[str(fold.attr[0])]):
                    reads.setdefault(inner, []).append(())
            for read, facts in _guarded(tensor.rhs, found[name]) if tensor.rhs is not None else ():
                at = system.tensors[str(read.attr)]
                reads.setdefault(at.name, []).append(tuple(_told(at, read, facts)))
    return {name: facts for name, facts in found.items() if facts}


def _guarded(node: Node, facts: Facts) -> Iterator[tuple[Node, Facts]]:
    """The reads below an expression, each with the guards that it stands under."""
    if node.op == "read":
        yield node, facts
    binding = OPS[node.op].binding
    if node.op == "where":
        condition, a, b = node.args
        yield from _guarded(condition, facts)
        yield from _guarded(a, (*facts, *build.conjuncts(condition)))
        yield from _guarded(b, (*facts, build.make("not", condition)))
    elif binding in ("reduce", "along", "fold"):
        *bodies, guard = unshadowed(node, facts)
        for body in bodies:
            yield from _guarded(body, (*facts, *build.conjuncts(guard)))
        yield from _guarded(guard, facts)
    else:
        for arg in unshadowed(node, facts) if binding else node.args:
            yield from _guarded(arg, facts)


def _told(tensor: Tensor, read: Node, facts: Facts) -> Iterator[Node]:
    """The facts at a read that are about its subscripts alone, said of the indices that the tensor is declared with."""
    own = {str(a.attr): build.index(i) for i, a in zip(tensor.indices, read.args, strict=True) if a.op == "index"}
    for fact in facts:
        if fact.free <= set(own) and build.can_substitute(fact, own):
            yield build.substitute(fact, own)


def _depends(system: System, fact: Node, name: str) -> bool:
    """Does a condition need the tensor itself?"""
    seen, todo = set[str](), [*read_names(fact)]
    while todo:
        if (here := todo.pop()) not in seen:
            seen.add(here)
            todo += sources(system, system.tensors[here])
    return name in seen
