"""Where a value can be non-zero, and which reads can matter there.

A normaliser is 0 outside its guard (rule 11), so in `sum[s] p * v[s]` with `p = softmax[s | s <= t](..)` nothing of
`v` after t matters, although the sum itself has no guard. Causality, stepping and the state record ask what can
matter; the schedule does not use this (there every read must be computable).
"""

from __future__ import annotations

from collections.abc import Iterator

from seqdsl.ir import build
from seqdsl.ir.beyond import numbers_beyond
from seqdsl.ir.dependence import build_not, may_equal, unshadowed
from seqdsl.ir.node import Node, reads
from seqdsl.ir.nonzero import Facts, conditions
from seqdsl.ir.ops import OPS
from seqdsl.ir.order import difference, upper_bound
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.system import System, Tensor, sources


@once_for_each
def support(system: System, node: Node) -> Facts:
    """Conditions that hold wherever the value is not zero."""
    return conditions(system, node, frozenset(n for n, x in numbers_beyond(system).items() if x is build.ZERO))


def relevant_reads(system: System, reader: Tensor) -> list[tuple[Node, Facts]]:
    """The reads below a tensor's equation, each with what holds where it can matter."""
    if reader.rhs is None:
        return []
    return list(_reads(system, reader.rhs, _weights(system).get(reader.name, ())))


def _reads(system: System, node: Node, facts: Facts) -> Iterator[tuple[Node, Facts]]:
    if node.op == "read":
        yield from _with_edges(system, node, facts)
    binding = OPS[node.op].binding
    if binding in ("reduce", "along", "fold"):
        *bodies, guard = unshadowed(node, facts)
        inner = (*facts, *named_conditions(system, guard))
        for body in bodies:
            yield from _reads(system, body, inner)
        yield from _reads(system, guard, facts)
    elif binding:
        for arg in unshadowed(node, facts):
            yield from _reads(system, arg, facts)
    elif node.op == "where":
        condition, a, b = node.args
        yield from _reads(system, condition, facts)
        yield from _reads(system, a, (*facts, *named_conditions(system, condition)))
        yield from _reads(system, b, (*facts, *build.conjuncts(build_not(condition))))
    elif node.op == "mul":
        a, b = node.args
        yield from _reads(system, a, (*facts, *support(system, b)))
        yield from _reads(system, b, (*facts, *support(system, a)))
    elif node.op == "and":
        # In `s <= t and doc[s] == doc[t]` what is read beside a plain comparison matters only where that holds.
        parts = build.conjuncts(node)
        plain = [c for c in parts if not reads(c)]
        for part in parts:
            yield from _reads(system, part, (*facts, *(c for c in plain if c is not part)))
    else:
        for arg in node.args:
            yield from _reads(system, arg, facts)


def _with_edges(system: System, read: Node, facts: Facts) -> Iterator[tuple[Node, Facts]]:
    """A read, and those of the base cases that it may reach."""
    yield read, facts
    for edge in system.tensors[str(read.attr)].edges:
        if may_equal(read.args[edge.position], edge.point):
            rest = read.args[: edge.position] + read.args[edge.position + 1 :]
            yield from _with_edges(system, build.read(edge.tensor, rest, system.tensors[edge.tensor].dtype), facts)


def named_conditions(system: System, guard: Node, depth: int = 4) -> list[Node]:
    """Conjuncts of a guard, with named boolean tensors (`see[t,s]`) opened up."""
    found = []
    for fact in build.conjuncts(guard):
        tensor = system.tensors.get(str(fact.attr)) if fact.op == "read" else None
        if depth and tensor is not None and tensor.kind == "derived" and tensor.rhs is not None and not tensor.edges:
            at = dict(zip(tensor.indices, fact.args, strict=True))
            opened = [c for c in build.conjuncts(tensor.rhs) if build.can_substitute(c, at)]
            for conjunct in opened:
                found += named_conditions(system, build.substitute(conjunct, at), depth - 1)
        else:
            found.append(fact)
    return found


@once_for_each
def _weights(system: System) -> dict[str, Facts]:
    """For a weight w[t, s], or w[t, s, r], over indices of the stream: `s <= t`, where no use of it needs another point.

    The greatest fixpoint: assume it of every such tensor that is no output, and drop it where a use does not show it.
    """
    stream = system.stream
    assumed: dict[str, Facts] = {}
    for tensor in system.derived():
        own = [i for i in tensor.indices if system.axis(i) == stream]
        if len(own) >= 2 and own[0] == stream and tensor.name not in system.outputs:
            assumed[tensor.name] = tuple(build.make("le", build.index(s), build.index(own[0])) for s in own[1:])
    changed = bool(assumed)
    while changed:
        changed = False
        for reader in system.derived():
            if reader.rhs is None or sources(system, reader).isdisjoint(assumed):
                continue
            for read, facts in _reads(system, reader.rhs, assumed.get(reader.name, ())):
                name = str(read.attr)
                if name in assumed and not _shown(system, system.tensors[name], read, facts):
                    del assumed[name]
                    changed = True
    return assumed


def _shown(system: System, tensor: Tensor, read: Node, facts: Facts) -> bool:
    t, *others = (k for k, i in enumerate(tensor.indices) if system.axis(i) == system.stream)
    tops = [upper_bound(system, difference(read.args[s], read.args[t]), facts) for s in others]
    return all(top is not None and top <= 0 for top in tops)
