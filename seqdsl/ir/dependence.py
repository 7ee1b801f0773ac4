"""The dependence graph with distance vectors, and the schedule that follows from it.

A read of X inside the equation of Y relates Y's point to X's along every axis they share. Its *distance* there is how
many steps earlier it reads: an exact integer, "+" (earlier by an unknown amount), "0+" (not later), or "?" (unknown).
A strongly connected component is a recurrence. Its tensors can be computed iff some axis has only distances that are
not negative (or only not positive: then the axis runs downwards) and some positive one; that axis becomes a loop,
edges it carries are dropped, and what remains is analysed again (Allen and Kennedy 1987, loop distribution). Picking
any such axis is complete: carrying an edge never hurts another one.

Architecture invariant: knows nothing of what a recurrence computes. Entry points: `dependence_graph`, `schedule`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Union

import networkx as nx

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, bound
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.system import System, Tensor, folds, monoid_reads

Distance = Union[int, str]  # an int, "+", "0+", "-", "0-" or "?"


@dataclass(frozen=True)
class Dependence:
    """`reader` needs `read` of `tensor`; `distance` maps shared axes to how much earlier the read is."""

    reader: str
    tensor: str
    read: Node | None
    distance: tuple[tuple[str, Distance], ...]

    def along(self, axis: str) -> Distance:
        """The distance along an axis; "?" where reader and tensor do not share it."""
        return dict(self.distance).get(axis, "?")


@dataclass(frozen=True)
class Compute:
    """Evaluate a tensor at the current positions of the enclosing loops, and at all positions of its other indices."""

    tensor: str


@dataclass(frozen=True)
class Loop:
    """Run `body` for each position of `axis`, upwards or downwards. `positions` says which index of each tensor
    computed inside (at any depth) the loop drives."""

    axis: str
    reverse: bool
    body: tuple[Step, ...]
    positions: tuple[tuple[str, int], ...]

    def tensors(self) -> list[str]:
        """Every tensor computed inside."""
        return [name for name, _ in self.positions]


Step = Union[Compute, Loop]


class NotWellFounded(Exception):
    """No order of the axes makes every self-read earlier; `cycle` is the evidence (rule 18)."""

    def __init__(self, cycle: list[Dependence]) -> None:
        self.cycle = cycle
        super().__init__(" -> ".join(d.reader for d in cycle))


def dependence_graph(system: System) -> nx.MultiDiGraph:
    """Nodes are derived tensors; an edge from the read tensor to its reader carries `dependence`."""
    graph = nx.MultiDiGraph()
    derived = {t.name for t in system.derived()}
    graph.add_nodes_from(t.name for t in system.derived())
    for tensor in system.derived():
        for dependence in dependences(system, tensor):
            if dependence.tensor in derived:
                graph.add_edge(dependence.tensor, tensor.name, dependence=dependence)
    return graph


def dependences(system: System, reader: Tensor) -> Iterator[Dependence]:
    """One for each read below the tensor's expression (and each edge of the tensor read), with its distances."""
    assert reader.rhs is not None
    for read, facts in _all_reads(reader.rhs):
        yield from _of_read(system, reader, read, facts)
    for fold in folds(reader.rhs):
        for name in sorted(monoid_reads(system.monoids[str(fold.attr[0])])):
            yield Dependence(reader.name, name, None, ())


def _of_read(system: System, reader: Tensor, read: Node, facts: tuple[Node, ...]) -> Iterator[Dependence]:
    tensor = system.tensors[str(read.attr)]
    yield Dependence(reader.name, tensor.name, read, _distances(system, reader, tensor, read.args, facts))
    for edge in tensor.edges:  # a read that may leave the axis needs the edge's tensor as well
        if may_equal(read.args[edge.position], edge.point):
            rest = read.args[: edge.position] + read.args[edge.position + 1 :]
            target = system.tensors[edge.tensor]
            inner = build.read(target.name, rest, target.dtype)
            yield from _of_read(system, reader, inner, facts)


def may_equal(subscript: Node, point: Node) -> bool:
    """False only where a constant or a bare index shows that the subscript never is the (outside) point."""
    if subscript.op == "index":
        return False
    a, b = build.value_of(subscript), build.value_of(point)
    return a is None or b is None or a == b


@lru_cache(5000)
def _all_reads(rhs: Node) -> tuple[tuple[Node, tuple[Node, ...]], ...]:
    return tuple(guarded_reads(rhs, ()))


def guarded_reads(node: Node, facts: tuple[Node, ...]) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """Each read with the boolean terms known to hold where it is evaluated; also reads inside subscripts and guards."""
    if node.op == "read":
        yield node, facts
    if OPS[node.op].binding in ("reduce", "along", "fold"):
        *bodies, guard = unshadowed(node, facts)
        for body in bodies:
            yield from guarded_reads(body, (*facts, *build.conjuncts(guard)))
        yield from guarded_reads(guard, facts)
    elif OPS[node.op].binding:
        for arg in unshadowed(node, facts):
            yield from guarded_reads(arg, facts)
    elif node.op == "where":
        condition, a, b = node.args
        yield from guarded_reads(condition, facts)
        yield from guarded_reads(a, (*facts, *build.conjuncts(condition)))
        yield from guarded_reads(b, (*facts, *build.conjuncts(build_not(condition))))
    elif node.op == "and":  # a chain or conjunction: the left operand may be taken to hold in the right one
        for position, arg in enumerate(node.args):
            others = tuple(c for k, other in enumerate(node.args) if k < position for c in build.conjuncts(other))
            yield from guarded_reads(arg, (*facts, *others))
    else:
        for arg in node.args:
            yield from guarded_reads(arg, facts)


@lru_cache(20_000)
def unshadowed(node: Node, facts: tuple[Node, ...] = ()) -> tuple[Node, ...]:
    """A binder's operands with its indices primed: below `sum[t]`, t is any position, not the equation's, nor one that
    the facts speak of."""
    taken = set().union(*(a.free for a in (*node.args, *facts)))
    names = {n: build.index(build.fresh(n + "'", taken)) for n in bound(node)}
    return tuple(build.substitute(a, names) for a in node.args)


def build_not(condition: Node) -> Node:
    """The negation, pushed through comparisons and `or` so that its conjuncts can be used as facts."""
    make = build.make
    if condition.op == "not":
        return condition.args[0]
    if condition.op in ("lt", "le"):
        a, b = condition.args
        return make("le" if condition.op == "lt" else "lt", b, a)
    if condition.op in ("eq", "ne"):
        return make("ne" if condition.op == "eq" else "eq", *condition.args)
    if condition.op == "or":
        return build.both(build_not(condition.args[0]), build_not(condition.args[1]))
    return make("not", condition)


def _distances(
    system: System, reader: Tensor, tensor: Tensor, subscripts: Iterable[Node], facts: tuple[Node, ...]
) -> tuple[tuple[str, Distance], ...]:
    from seqdsl.ir.order import distance

    mine: dict[str, str] = {}
    for index in reader.indices:
        mine.setdefault(system.axis(index), index)
    found: dict[str, Distance] = {}
    for own, subscript in zip(tensor.indices, subscripts, strict=True):
        axis = system.axis(own)
        if axis in mine and axis not in found:  # a loop over the axis drives the first index of each tensor
            found[axis] = distance(system, mine[axis], subscript, facts)
    return tuple(sorted(found.items()))


@once_for_each
def schedule(system: System) -> tuple[Step, ...]:
    """An order in which every tensor is computed after what it reads. Raises `NotWellFounded`."""
    graph = dependence_graph(system)
    order = {t.name: k for k, t in enumerate(system.derived())}
    return tuple(_steps(system, graph, order, frozenset()))


def _steps(system: System, graph: nx.MultiDiGraph, order: dict[str, int], carried: frozenset[str]) -> Iterator[Step]:
    components = nx.condensation(nx.DiGraph(graph))
    members = {n: sorted(d["members"], key=order.__getitem__) for n, d in components.nodes(data=True)}
    for node in nx.lexicographical_topological_sort(components, key=lambda n: order[members[n][0]]):
        names = members[node]
        if len(names) == 1 and not graph.has_edge(names[0], names[0]):
            yield Compute(names[0])
        else:
            yield _loop(system, graph.subgraph(names).copy(), order, carried)


def _loop(system: System, graph: nx.MultiDiGraph, order: dict[str, int], carried: frozenset[str]) -> Loop:
    names = sorted(graph.nodes, key=order.__getitem__)
    shared = [a for a in _axes(system, names[0]) if a not in carried and all(a in _axes(system, n) for n in names)]
    edges = [d["dependence"] for _, _, d in graph.edges(data=True)]
    for axis in shared:
        for reverse in (False, True):
            signs = [sign(e.along(axis), reverse) for e in edges]
            if all(s >= 0 for s in signs) and any(s > 0 for s in signs):
                inner = nx.MultiDiGraph()
                inner.add_nodes_from(names)
                for u, v, d in graph.edges(data=True):
                    if sign(d["dependence"].along(axis), reverse) == 0:
                        inner.add_edge(u, v, **d)
                body = tuple(_steps(system, inner, order, carried | {axis}))
                positions = tuple((n, _axes(system, n).index(axis)) for n in names)
                return Loop(axis, reverse, body, positions)
    raise NotWellFounded(_cycle(graph))


def _axes(system: System, name: str) -> list[str]:
    return [system.axis(i) for i in system.tensors[name].indices]


def sign(d: Distance, reverse: bool) -> int:
    """1 where a loop over the axis carries the dependence, 0 where it may be within one step, -1 where it is against."""
    if isinstance(d, int):
        d = -d if reverse else d
        return (d > 0) - (d < 0)
    ahead, level = ("-", "0-") if reverse else ("+", "0+")
    return 1 if d == ahead else 0 if d == level else -1


def _cycle(graph: nx.MultiDiGraph) -> list[Dependence]:
    cycle = nx.find_cycle(graph)
    return [graph.edges[edge]["dependence"] for edge in cycle]


def recurrences(system: System) -> list[Loop]:
    """The outermost loops of the schedule: one for each strongly connected component."""
    return [step for step in schedule(system) if isinstance(step, Loop)]


def loop_of(system: System, name: str) -> Loop:
    """The recurrence that a tensor belongs to."""
    return next(loop for loop in recurrences(system) if name in loop.tensors())


def loop_again(system: System, loop: Loop) -> Loop | None:
    """What is left of a recurrence after a rewriting; None where nothing is."""
    names = set(loop.tensors())
    return next((found for found in recurrences(system) if names & set(found.tensors())), None)
