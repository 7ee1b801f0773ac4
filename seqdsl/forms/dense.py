"""Scan over matrices: affine recurrences that mix entries of the state, `S[t] = A[t] S[t-1] + b[t]`.

What mixes becomes a component index: an axis that is contracted through a matrix, permuted or shifted, and, for states
that read each other entry by entry (momentum, lags), an index that says which state it is. All other axes are carried.
The matrix is written down from the update: a term that reads the state at another place of an axis, `S[t-1, e(n)]`, is
the matrix with a 1 where the read component m equals e(n); a contraction renames its summed index to m. Composition of
(A, b) is associative with identity (I, 0), over any number of components; only for few of them does it pay.

A place outside the axis is no component, and so reads 0, as it does in the equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NoMatch, Term, Update, split_update, states_and_updates
from seqdsl.forms.indices import new_index
from seqdsl.forms.scan import start_of
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.system import System, Tensor


@dataclass(frozen=True)
class Components:
    """The component indices, n and m: the state's number (none for a single state) and the axes that mix."""

    tag: tuple[str, str] | None
    axes: tuple[tuple[str, str], ...]

    @property
    def kept(self) -> tuple[str, ...]:
        """The indices n of the rows."""
        return (*((self.tag[0],) if self.tag else ()), *(n for n, _ in self.axes))

    def is_state(self, number: int) -> Node:
        """The condition that a component is of the state of that number."""
        return build.TRUE if self.tag is None else build.make("eq", build.index(self.tag[0]), build.const(number))

    @property
    def read(self) -> tuple[str, ...]:
        """The indices m of the columns: the components that a row reads."""
        return (*((self.tag[1],) if self.tag else ()), *(m for _, m in self.axes))

    def joined(self, parts: Sequence[Node]) -> Node:
        """What each state has, as one expression over the components."""
        if self.tag is None:
            return parts[0]
        whole = build.ZERO
        for number, part in enumerate(parts):
            whole = whole if part is whole else build.where(self.is_state(number), part, whole)
        return whole


@dataclass(frozen=True)
class MatrixStep:
    """One step of a loop's states together: S[t] = A S[t-1] + b. `writes` and `starts` are those of each state;
    `carry` are the tensors that hold the states before the first step."""

    updates: tuple[Update, ...]
    components: Components
    matrix: Node
    writes: tuple[Node, ...]
    starts: tuple[Node, ...]
    carry: tuple[Tensor, ...]

    def joined(self, parts: tuple[Node, ...]) -> Node:
        """What each state has, as one expression over the components."""
        return self.components.joined(parts)


def matrix_step(system: System, loop: Loop) -> tuple[System, MatrixStep]:
    """The system with the index that numbers the states, where there are several, and the step. Raises `NoMatch`."""
    updates = states_and_updates(system, loop)
    names = {u.state.name: n for n, u in enumerate(updates)}
    split = [split_update(system, u.rhs, names) for u in updates]
    system, components = components_of(system, [u.state for u in updates], {updates[0].time}, [terms for terms, _ in split])
    if not components.kept:
        raise NoMatch("no entries of the state mix")
    rows, starts, carry = [], [], []
    for update, (terms, _) in zip(updates, split, strict=True):
        rows.append(build.total(matrix_entry(update.state, names, components, t) for t in terms))
        begin, made = start_of(system, update, loop)
        starts.append(begin)
        carry += made
    writes = tuple(rest for _, rest in split)
    step = MatrixStep(tuple(updates), components, build.ZERO, writes, tuple(starts), tuple(carry))
    return system, replace(step, matrix=step.joined(tuple(rows)))


def scanned(step: MatrixStep, reverse: bool) -> list[Tensor]:
    """The states as components of one `matrix_scan`."""
    attr = ((step.updates[0].time, *step.components.kept), step.components.read, (("reverse", reverse),))
    scan = make("matrix_scan", step.matrix, step.joined(step.writes), step.joined(step.starts), attr=attr)
    return from_components([u.state for u in step.updates], step.updates[0].time, step.components, scan)


def to_matrix_scan(system: System, loop: Loop) -> System:
    """Replace the states' equations by components of one `matrix_scan`. Raises `NoMatch`."""
    system, step = matrix_step(system, loop)
    return system.with_tensors(*scanned(step, loop.reverse), *step.carry)


def components_of(
    system: System, states: list[Tensor], times: Set[str], terms: list[list[Term]]
) -> tuple[System, Components]:
    """The components of some states, which run along `times` and have the same indices, by the terms of their updates;
    the system with the index that numbers the states, where there are several. Raises `NoMatch`."""
    indices = states[0].indices
    if any(s.indices != indices for s in states):
        listed = ", ".join(f"{s.name}[{','.join(s.indices)}]" for s in states)
        raise NoMatch(f"the states read each other, and have different indices: {listed}")
    mixed = {
        own
        for ts in terms
        for term in ts
        for own, subscript in zip(indices, term.read.args, strict=True)
        if own not in times and subscript is not build.index(own)
    }
    axes = []
    for own in [i for i in indices if i in mixed]:
        name = build.fresh(
            own + "'", {*system.indices, *(i for ts in terms for t in ts for i in (*t.over, *t.read.free))}
        )
        axes.append((own, name))
    tag = None
    if len(states) > 1:
        system, name = new_index(system, f"{states[0].name}.part", len(states))
        tag = (name, name + "'")
    if len(axes) > 1:
        listed = " and ".join(f"`{own}`" for own, _ in axes)
        raise NoMatch(f"entries mix along {listed} at once: a matrix over both would be too large")
    return system, Components(tag, tuple(axes))


def matrix_entry(state: Tensor, names: Mapping[str, int], components: Components, term: Term) -> Node:
    """A term's part of the matrix A[n, m], in the rows of a state."""
    subscripts = dict(zip(state.indices, term.read.args, strict=True))
    over, renamed, places = list(term.over), {}, []
    for own, read in components.axes:
        subscript = subscripts[own]
        if subscript.op == "index" and str(subscript.attr) in over:
            renamed[str(subscript.attr)] = build.index(read)
            over.remove(str(subscript.attr))
        else:
            places.append(build.make("eq", build.index(read), subscript))
    if components.tag:
        places.append(build.make("eq", build.index(components.tag[1]), build.const(names[str(term.read.attr)])))
    guard, coefficient = (build.substitute(x, renamed) for x in (term.guard, term.coefficient))
    places = [build.substitute(p, renamed) for p in places]
    inside = [p for p in places if p.free & frozenset(over)]
    for place in inside:
        guard = build.both(guard, place)
    value = build.reduce("sum", over, coefficient, guard)
    for place in places:
        if place not in inside:
            value = build.where(place, value, build.ZERO)
    return value


def from_components(states: list[Tensor], time: str, components: Components, scan: Node) -> list[Tensor]:
    """Each state as its component of the scan, which is a tensor of its own where there are several."""
    first = states[0]
    if components.tag is None:
        return [replace(first, rhs=scan)]
    lead = (time, components.tag[0])
    indices = (*lead, *(i for i in first.indices if i not in lead))
    whole = Tensor(f"{first.name}.parts", indices, scan.dtype, "derived", scan, comment="the states, one after another")
    found = [whole]
    for number, state in enumerate(states):
        at = [build.const(number) if i == components.tag[0] else build.index(i) for i in indices]
        found.append(replace(state, rhs=build.read(whole.name, at, whole.dtype)))
    return found
