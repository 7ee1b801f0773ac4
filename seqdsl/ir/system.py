"""A system of recurrence equations: the compiler's whole currency. Every pass takes one and gives one.

A `System` is a mixer after checking: calls inlined, static loops unrolled, every name resolved, every subscript
present. Each tensor is given by one expression over its indices; a cycle through it is a recurrence.

Names. A tensor of an inlined call carries its left side's name as a prefix, `o.S`; so do the indices the callee makes,
`o.r`. A prime marks an index that substitution renamed, `s'`, and runs over the axis of `s`.

Reads. `read X[e1, .., en]`: inside its axes, the value of X. Outside, the tensor of the first edge whose position is
outside and whose point equals the subscript there, read at the remaining subscripts; with no such edge, 0 (false).
A guard or `where` decides before anything is read.

Edges. `m[-1,h] = -inf` makes the tensor `m@t=-1` with indices (h), and an edge of m at position 0, point -1. A base
case inside the axis (`f[0,c] = ..`) has become a `where` in the expression. Two points make an edge of an edge.

State. Along the stream (the axis of the first input's first index) a value before the first position comes from the
state record, if one is given, else from the edge; see `state.state_record`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from seqdsl.diagnostics import Span
from seqdsl.ir.node import Node, read_names, reads, walk
from seqdsl.ir.ops import bound, made

if TYPE_CHECKING:
    from seqdsl.ir.state import StateEntry


@dataclass(frozen=True)
class Index:
    """`axis` is the name of the first index of the axis (itself, unless `index s over t`); `size` is None where the
    inputs give the length, else a formula over sizes and options."""

    name: str
    axis: str
    size: Node | None


@dataclass(frozen=True)
class Edge:
    """Where position `position` of the tensor reads `point`, outside its axis, `tensor` holds the value."""

    position: int
    point: Node
    tensor: str


@dataclass(frozen=True)
class Tensor:
    """kind is one of
    "input"    given at the call, with a batch axis in front;
    "param"    trained: `rhs` is its initialiser (None: the default); `path` its name in the state_dict;
    "const"    like a param, not trained: a buffer;
    "derived"  defined by `rhs`, over `indices`;
    "carry"    made by forms: the value of the state entry `path[0]`, or the last of those that it keeps (path[1] is "last"); or
               `rhs` where no state is given;
    "given"    while a rewriting looks at a step of a loop (`nest`): what its earlier steps have computed of
               path[0], the loop's axis path[1].
    `path` of a parameter of a call with `per = l` holds the index in angle brackets: ("x", "<l>", "q.weight").
    """

    name: str
    indices: tuple[str, ...]
    dtype: str
    kind: str
    rhs: Node | None = None
    edges: tuple[Edge, ...] = ()
    path: tuple[str, ...] = ()
    fan_in: tuple[str, ...] = ()  # a linear's weight or bias: the contracted indices, for torch.nn.Linear's init
    comment: str = ""  # the equation as the user wrote it, and the comment beside it


@dataclass(frozen=True)
class Monoid:
    """A declared monoid, its field indices already those of its use.

    Expressions read pseudo-tensors: lift reads its `lift_params` by name; `combine` reads "a.m" and "b.m" (earlier
    and later operand, whatever the user calls them) and may read the auxiliary equations before it; `project` reads
    the fields. `combine` and `project` are equations in order: the last ones named after the fields, and after the
    output, count. Parameters are read as ordinary tensors of the system.
    """

    name: str
    fields: tuple[tuple[str, tuple[str, ...]], ...]
    lift_params: tuple[tuple[str, tuple[str, ...]], ...]
    lift: tuple[Node, ...]
    identity: tuple[Node, ...] | None
    combine: tuple[Tensor, ...]
    project: tuple[Tensor, ...]
    output: str
    claims: tuple[Claim, ...] = ()
    types: tuple[str, ...] = ()  # of the fields, by what its use lifts into them; empty before types are inferred


@dataclass(frozen=True)
class Claim:
    """A user's assertion. `args` are names (of tensors, indices) by `kind`; for "equal" and "cost" the two sides are
    tensors of `system`, an extension of the mixer's own. `condition` is the `when` clause, or None."""

    kind: str
    args: tuple[str, ...]
    text: str
    condition: Node | None = None
    system: System | None = None
    nodes: tuple[Node, ...] = ()
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True)
class SizeCheck:
    """A size the user wrote: `value` must be exact and at least `least`; `label` says whose it is, "GLA.D"."""

    label: str
    value: Node
    least: int
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True)
class System:
    """See the module's docstring. `constraints` are pairs of indices whose axes must have equal lengths (rule 6)."""

    name: str
    options: Mapping[str, Node | None]
    indices: Mapping[str, Index]
    tensors: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    claims: tuple[Claim, ...] = ()
    monoids: Mapping[str, Monoid] = field(default_factory=dict)
    checks: tuple[SizeCheck, ...] = ()
    constraints: tuple[tuple[str, str], ...] = ()
    doc: tuple[str, ...] = ()
    finals: Mapping[str, str] = field(default_factory=dict)  # state entry -> the tensor by which a form gives it
    record: tuple[StateEntry, ...] | None = None  # the state record of the system that a form was derived from
    spans: Mapping[object, Span] = field(
        default_factory=dict, compare=False, repr=False
    )  # tensor or (tensor, node) -> place

    def index(self, name: str) -> Index:
        """The index of that name; a primed one is its original on the same axis."""
        return self.indices[name.rstrip("'")]

    def indices_of(self, node: Node) -> tuple[Index, ...]:
        """The indices that an expression mentions, free, bound or by their lengths, and those that name their axes."""
        own = [self.index(name) for name in index_names(node)]
        return tuple(dict.fromkeys([*own, *(self.indices[i.axis] for i in own)]))

    def axis(self, name: str) -> str:
        """The axis (its first index's name) that an index runs over."""
        return self.index(name).axis

    def is_own(self, tensor: Tensor, position: int, subscript: Node) -> bool:
        """Is it an index of the axis that the tensor has there? An index of another axis may go on beyond its end."""
        return subscript.op == "index" and self.axis(str(subscript.attr)) == self.axis(tensor.indices[position])

    def is_inside(self, read: Node) -> bool:
        """Is every subscript of a read an index of the tensor's own axis? What is outside reads 0, or a base case."""
        tensor = self.tensors[str(read.attr)]
        return all(self.is_own(tensor, k, a) for k, a in enumerate(read.args))

    def inputs(self) -> list[Tensor]:
        """In the header's order."""
        return [t for t in self.tensors.values() if t.kind == "input"]

    def params(self) -> list[Tensor]:
        """Parameters and constants, in the order of the text."""
        return [t for t in self.tensors.values() if t.kind in ("param", "const")]

    def derived(self) -> list[Tensor]:
        """In the order of the text."""
        return [t for t in self.tensors.values() if t.kind in ("derived", "carry")]

    @cached_property
    def stream(self) -> str | None:
        """The streamed axis: that of the first index of the first input."""
        first = next(iter(self.inputs()), None)
        return self.axis(first.indices[0]) if first is not None and first.indices else None

    def with_tensors(self, *changed: Tensor, drop: tuple[str, ...] = ()) -> System:
        """Tensors replaced or added by name, and others dropped."""
        tensors = {n: t for n, t in self.tensors.items() if n not in drop}
        return replace(self, tensors={**tensors, **{t.name: t for t in changed}})

    def with_indices(self, *changed: Index) -> System:
        """Indices replaced or added by name."""
        return replace(self, indices={**self.indices, **{i.name: i for i in changed}})


@lru_cache(5000)
def index_names(node: Node) -> tuple[str, ...]:
    """The indices that an expression mentions, as it names them."""
    below = [(str(n.attr),) if n.op in ("index", "size", "first") else (*bound(n), *made(n)) for n in walk(node)]
    return tuple(sorted({name for names in below for name in names}))


def sources(system: System, tensor: Tensor) -> set[str]:
    """The tensors that a tensor's expression reads, their edges included."""
    return sources_below(system, tensor.rhs)


def dependencies(system: System, tensor: Tensor) -> set[str]:
    """The tensors that a tensor is made of: those that its expression reads, and its own base cases."""
    return sources(system, tensor) | {edge.tensor for edge in tensor.edges}


def sources_below(system: System, node: Node | None) -> set[str]:
    """The same of an expression; none of no expression."""
    found: set[str] = set()
    pending = [str(r.attr) for r in reads(node)] if node is not None else []
    pending += [name for fold in folds(node) for name in monoid_reads(system.monoids[str(fold.attr[0])])]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += [edge.tensor for edge in system.tensors[name].edges]
    return found


@lru_cache(5000)
def edge_at_start(tensor: Tensor, position: int, *, reverse: bool = False) -> Edge | None:
    """The base case one step before a recurrence's first: those further out are for longer lags, those beyond its last step
    for other readers."""
    for edge in tensor.edges:
        if edge.position == position and (edge.point.op == "size" if reverse else edge.point.attr == -1):
            return edge
    return None


@lru_cache(20_000)
def folds(node: Node | None) -> tuple[Node, ...]:
    """The folds of declared monoids below a node."""
    return () if node is None else tuple(n for n in walk(node) if n.op == "fold")


def monoid_reads(monoid: Monoid) -> set[str]:
    """The system's tensors (parameters) that a monoid reads."""
    own = {name for name, _ in (*monoid.fields, *monoid.lift_params)} | {
        t.name for t in (*monoid.combine, *monoid.project)
    }
    own |= {f"{side}.{name}" for side in "ab" for name, _ in monoid.fields}
    nodes = (*monoid.lift, *(monoid.identity or ()), *(t.rhs for t in (*monoid.combine, *monoid.project) if t.rhs))
    return {str(r.attr) for node in nodes for r in reads(node)} - own


def live(system: System) -> System:
    """Without the derived tensors that no output, and no claim, needs."""
    return reached(system, (a for c in system.claims for a in (*c.args, *_named(c))))


def _named(claim: Claim) -> frozenset[str]:
    """The tensors that a claim's condition reads."""
    return frozenset() if claim.condition is None else read_names(claim.condition)


def reached(system: System, more: Iterable[str] = ()) -> System:
    """Without the derived tensors that neither an output, nor the state's end, nor one of `more` needs."""
    found: set[str] = set()
    pending = [
        *system.outputs,
        *system.finals.values(),
        *(e.tensor for e in system.record or () if e.name not in system.finals and e.tensor in system.tensors),
        *(n for n in more if n in system.tensors),
    ]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            tensor = system.tensors[name]
            pending += dependencies(system, tensor)
    kept = {n: t for n, t in system.tensors.items() if n in found or t.kind not in ("derived", "carry")}
    return replace(system, tensors=kept)
