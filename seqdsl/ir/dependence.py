"""The dependence graph with distance vectors, and the schedule that follows from it.

A read of X inside the equation of Y relates Y's point to X's along every axis they share. Its *distance* there is how
many steps earlier it reads: an exact integer, "+" (earlier by an unknown amount), "0+" (not later), or "?" (unknown).
A strongly connected component is a recurrence. Its tensors can be computed iff some axis has only distances that are
not negative (or only not positive: then the axis runs downwards) and some positive one; that axis becomes a loop,
edges it carries are dropped, and what remains is analysed again (Allen and Kennedy 1987, loop distribution). Picking
any such axis is complete: carrying an edge never hurts another one.

Architecture invariant: knows nothing of what a recurrence computes. Entry points: `dependences`, `schedule`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Union

from seqdsl.ir import build
from seqdsl.ir.graphs import components, cycle, in_order
from seqdsl.ir.node import Node, read_names, reads
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

    def tensors(self) -> list[str]:
        """Every tensor that it computes, as of a loop."""
        return [self.tensor]


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


def dependences_among(system: System, names: Collection[str]) -> list[Dependence]:
    """Those of some tensors on each other."""
    return [d for name in names for d in dependences(system, system.tensors[name], names)]


def dependences(system: System, reader: Tensor, among: Collection[str] | None = None) -> Iterator[Dependence]:
    """One for each read below the tensor's expression (and each edge of the tensor read), with its distances; only of
    the tensors `among` which it is asked for."""
    assert reader.rhs is not None
    for read, facts in _all_reads(reader.rhs):
        for tensor, inner in _with_edges(system, read):
            if among is None or tensor.name in among:
                distances = _distances(system, reader, tensor, inner.args, facts)
                yield Dependence(reader.name, tensor.name, inner, distances)
    for name in sorted(_read_by_folds(system, reader.rhs)):
        if among is None or name in among:
            yield Dependence(reader.name, name, None, ())


def _with_edges(system: System, read: Node) -> Iterator[tuple[Tensor, Node]]:
    """The tensor that is read; and, as a read that may leave the axis needs the edge's tensor as well, that one."""
    tensor = system.tensors[str(read.attr)]
    yield tensor, read
    for edge in tensor.edges:
        if may_equal(read.args[edge.position], edge.point):
            rest = read.args[: edge.position] + read.args[edge.position + 1 :]
            yield from _with_edges(system, build.read(edge.tensor, rest, system.tensors[edge.tensor].dtype))


def _read_by_folds(system: System, rhs: Node) -> set[str]:
    return set().union(*(monoid_reads(system.monoids[str(fold.attr[0])]) for fold in folds(rhs)))


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
    rank = {t.name: k for k, t in enumerate(system.derived())}
    graph: dict[str, set[str]] = {name: set() for name in rank}  # from what is read to its readers
    for reader in system.derived():
        for name in _needed(system, reader).intersection(rank):
            graph[name].add(reader.name)
    return tuple(_steps(system, graph, rank, None, frozenset()))


def _needed(system: System, reader: Tensor) -> set[str]:
    """The tensors that an equation reads."""
    assert reader.rhs is not None
    found = set(read_names(reader.rhs))
    if any(system.tensors[name].edges for name in found):
        found = {tensor.name for read in reads(reader.rhs) for tensor, _ in _with_edges(system, read)}
    return found | _read_by_folds(system, reader.rhs)


def _steps(
    system: System,
    graph: Mapping[str, set[str]],
    rank: Mapping[str, int],
    known: list[Dependence] | None,
    carried: frozenset[str],
) -> Iterator[Step]:
    """Distances matter inside a component only: there they are worked out, once, and `known` to the loops inside."""
    parts = {min(part, key=rank.__getitem__): part for part in components(graph)}
    first = {name: head for head, part in parts.items() for name in part}
    above = {head: {first[end] for n in part for end in graph[n]} - {head} for head, part in parts.items()}
    for head in in_order(above, rank.__getitem__):
        names = sorted(parts[head], key=rank.__getitem__)
        if len(names) == 1 and head not in graph[head]:
            yield Compute(head)
        else:
            among = dependences_among(system, names) if known is None else known
            edges = [d for d in among if d.tensor in parts[head] and d.reader in parts[head]]
            yield _loop(system, names, edges, rank, carried)


def _loop(
    system: System, names: list[str], edges: list[Dependence], rank: Mapping[str, int], carried: frozenset[str]
) -> Loop:
    shared = [a for a in _axes(system, names[0]) if a not in carried and all(a in _axes(system, n) for n in names)]
    for axis in shared:
        for reverse in (False, True):
            signs = [sign(e.along(axis), reverse) for e in edges]
            if all(s >= 0 for s in signs) and any(s > 0 for s in signs):
                inner = [e for e, s in zip(edges, signs, strict=True) if s == 0]
                body = tuple(_steps(system, _between(names, inner), rank, inner, carried | {axis}))
                positions = tuple((n, _axes(system, n).index(axis)) for n in names)
                return Loop(axis, reverse, body, positions)
    raise NotWellFounded(_cycle(names, edges))


def _between(names: list[str], edges: list[Dependence]) -> dict[str, set[str]]:
    """The graph from what is read to its readers."""
    return {name: {e.reader for e in edges if e.tensor == name} for name in names}


def _axes(system: System, name: str) -> list[str]:
    return [system.axis(i) for i in system.tensors[name].indices]


def sign(d: Distance, reverse: bool) -> int:
    """1 where a loop over the axis carries the dependence, 0 where it may be within one step, -1 where it is against."""
    if isinstance(d, int):
        d = -d if reverse else d
        return (d > 0) - (d < 0)
    ahead, level = ("-", "0-") if reverse else ("+", "0+")
    return 1 if d == ahead else 0 if d == level else -1


def _cycle(names: list[str], edges: list[Dependence]) -> list[Dependence]:
    found = cycle({name: [e.reader for e in edges if e.tensor == name] for name in names})
    pairs = zip(found, (*found[1:], found[0]), strict=True)
    return [next(e for e in edges if (e.tensor, e.reader) == pair) for pair in pairs]


def every_loop(steps: Iterable[Step]) -> Iterator[Loop]:
    """The loops of a schedule at any depth, each before those inside it."""
    for step in steps:
        if isinstance(step, Loop):
            yield step
            yield from every_loop(step.body)


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
