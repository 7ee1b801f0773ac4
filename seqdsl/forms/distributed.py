"""Context parallelism: each rank holds a piece of the stream, and learns what entered it before it begins.

The steps of a recurrence whose class has a monoid compose to one element, which is small: for `S[t] = A[t] S[t-1] + b[t]`
the map (A, b) of the whole piece. Each rank folds its own piece, the elements cross ranks, and their exclusive scan acts
on the state that enters the first rank: what enters a piece is what the pieces before it make of that.

    S.piece     the recurrence by itself, started from 0 (the ring's zero): b is its last value
    S.columns   the recurrence without what it writes, started from the identity: A is its last value. Where entries do
                not mix, A is the product of the decays (the sum of their logarithms); in another ring, its product
    S@ranks     what enters the piece (0), and what leaves the last one (1): `across_ranks(A, b, start)`
    S@start     what enters the piece: the base case of the recurrence, which else is as it was

A state that is read several steps back crosses with its companions (`algebra.lags`): the window of its last values.
So this is a rewriting of equations like any other, and what it makes are recurrences, which the other forms rewrite; with
one rank the operator is (start, A start + b). What is no recurrence and is read a few positions back needs the last
positions before the piece: a monoid as well, the last w positions of the concatenation (`StateEntry.across`).

Entry point: `across`, for one recurrence; `pieces.in_pieces` asks it for all of a system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NoMatch, Term, Update, diagonal, neither, split_update, states_and_updates
from seqdsl.algebra.lags import has_lags, lag_name, with_companions
from seqdsl.forms.dense import Components, components_of
from seqdsl.forms.indices import along, new_index
from seqdsl.forms.reads import final_name, some_positions
from seqdsl.forms.ring import over_ring
from seqdsl.forms.scan import start_of
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node, read_names, rebuild_reads
from seqdsl.ir.ops import make
from seqdsl.ir.state import POSITION, StateEntry
from seqdsl.ir.system import Edge, Index, System, Tensor


@dataclass(frozen=True)
class Element:
    """The element of a recurrence's monoid that a piece is: the states, A (`factor`) and b for each, how A acts, and what
    of the two is new in the system. `components` are those along which A is a matrix."""

    updates: tuple[Update, ...]
    factor: Node
    added: tuple[Node, ...]
    acts: str
    made: tuple[Tensor, ...]
    components: Components = Components(None, ())


def across(system: System, loop: Loop) -> tuple[System, Element]:
    """The system in which a recurrence along the stream begins with what enters this rank's piece. Raises `NoMatch`."""
    if has_lags(system, loop):
        system, loop = with_companions(system, loop)
    system, element = _element(system, loop)
    system = system.with_tensors(*element.made)
    return _exchanged(system, loop, element), element


def _element(system: System, loop: Loop) -> tuple[System, Element]:
    """The first that the update admits: entry by entry, over matrices, over another ring."""
    try:
        return system, _of_decays(system, loop)
    except NoMatch as first:
        reason = first
    for found in (_of_matrices, _of_ring):
        try:
            return found(system, loop)
        except NoMatch as other:
            reason = neither(reason, other)
    raise reason


def _of_decays(system: System, loop: Loop) -> Element:
    """States that do not mix, each with its own decay: a loop with several has an element for each, taken as one."""
    states = diagonal(system, loop)
    if len(states) > 1:
        raise NoMatch(f"the states {', '.join(f'`{s.update.state.name}`' for s in states)} are solved together")
    (state,) = states
    factor = _factor(state.update, state.operand, "sum" if state.log else "prod")
    added, made = _by_itself(system, loop, [state.update], {})
    return Element((state.update,), build.whole(factor), tuple(added), "exp" if state.log else "times", (factor, *made))


def _of_ring(system: System, loop: Loop) -> tuple[System, Element]:
    """The same over another ring."""
    update, ring, body, _ = over_ring(system, loop)
    factor = _factor(update, body, ring.product)
    added, made = _by_itself(system, loop, [update], {update.state.name: ring.zero})
    return system, Element((update,), build.whole(factor), tuple(added), ring.option, (factor, *made))


def _of_matrices(system: System, loop: Loop) -> tuple[System, Element]:
    """States whose entries mix: a matrix over the axes along which they do, and over the states where there are several."""
    updates = states_and_updates(system, loop)
    names = {u.state.name: n for n, u in enumerate(updates)}
    terms = [split_update(system, u.rhs, names)[0] for u in updates]
    system, components = components_of(system, [u.state for u in updates], {u.time for u in updates}, terms)
    if not components.kept:
        raise NoMatch("no entries of the state mix")
    system, components = _declared(system, updates[0].state.name, components)
    columns = _columns(updates, terms, components)
    added, made = _by_itself(system, loop, updates, {})
    ends = [_end(u, t) for u, (t, _) in zip(updates, columns, strict=True)]
    starts = [s.rhs or build.ZERO for _, s in columns]
    factor = components.joined([_value(system, u, t, s) for u, t, s in zip(updates, ends, starts, strict=True)])
    tensors = (*(t for pair in columns for t in pair), *ends, *made)
    return system, Element(tuple(updates), factor, tuple(added), "matrix", tensors, components)


def _factor(update: Update, body: Node, product: str) -> Tensor:
    """The product of the coefficients along the piece."""
    indices = tuple(i for i in update.state.indices if i in body.free and i != update.time)
    rhs = build.reduce(product, (update.time,), body)
    comment = f"how the piece as a whole acts on {update.state.name}"
    return Tensor(f"{update.state.name}@factor", indices, rhs.dtype, "derived", rhs, comment=comment)


def _by_itself(
    system: System, loop: Loop, updates: list[Update], zeros: Mapping[str, Node]
) -> tuple[list[Node], list[Tensor]]:
    """The last values of the recurrence started from 0, and its tensors: a copy of the loop."""
    names = {name: f"{name}.piece" for name in loop.tensors()}
    made: list[Tensor] = []
    added: list[Node] = []
    members = dict(loop.positions)
    for name, copy in names.items():
        tensor = system.tensors[name]
        assert tensor.rhs is not None
        rhs = rebuild_reads(tensor.rhs, names, lambda n: build.read(names[str(n.attr)], n.args, n.dtype))
        beside = tuple(e for e in tensor.edges if e.position != members[name])
        comment = f"{name} of this piece by itself"
        made.append(replace(tensor, name=copy, rhs=rhs, edges=beside, comment=comment))
    for update in updates:
        zero = zeros.get(update.state.name, build.ZERO)
        place = next(k for k, t in enumerate(made) if t.name == names[update.state.name])
        start = _start_tensor(update, f"{made[place].name}@start", zero)
        if zero is not build.ZERO and zero is not build.FALSE:
            made[place] = replace(made[place], edges=(*made[place].edges, _edge(update, start.name)))
            made.append(start)
        made.append(_end(update, made[place]))
        added.append(_value(system, update, made[-1], zero))
    return added, made


def _start_tensor(update: Update, name: str, value: Node) -> Tensor:
    rest = tuple(i for i in update.state.indices if i != update.time)
    value = build.at_least_real(value) if update.state.dtype in ("real", "complex") else value
    return Tensor(name, rest, update.state.dtype, "derived", value)


def _edge(update: Update, tensor: str, position: int | None = None) -> Edge:
    """The edge of a state by which it starts."""
    point = build.const(-1) if update.step < 0 else build.size(update.time)
    return Edge(update.position if position is None else position, point, tensor)


def _end(update: Update, tensor: Tensor) -> Tensor:
    """A state after the last position of the piece; where the piece has none, its base case."""
    last = build.sub(build.size(update.time), build.ONE) if update.step < 0 else build.ZERO
    at = [last if i == update.time else build.index(i) for i in tensor.indices]
    rest = tuple(i for i in tensor.indices if i != update.time)
    value = build.read(tensor.name, at, tensor.dtype)
    return Tensor(f"{tensor.name}@end", rest, tensor.dtype, "derived", value, comment=f"{tensor.name} after its last position")


def _value(system: System, update: Update, end: Tensor, start: Node) -> Node:
    """What `_end` gives. Where positions count those of other pieces, an empty piece does not end before its first one."""
    counted = any(e.name == POSITION for e in system.record or ())
    return build.where(some_positions(system, update.time), build.whole(end), start) if counted else build.whole(end)


def _declared(system: System, name: str, components: Components) -> tuple[System, Components]:
    """The components with indices of their own for the columns of the matrix."""
    indices, axes, tag = dict(system.indices), [], components.tag
    for own, _ in components.axes:
        column = build.numbered(f"{name}.{own}", indices)
        indices[column] = Index(column, column, build.size(own))
        axes.append((own, column))
    if tag is not None:
        column = build.numbered(f"{name}.from", indices)
        indices[column] = replace(indices[tag[0]], name=column, axis=column)
        tag = (tag[0], column)
    return replace(system, indices=indices), Components(tag, tuple(axes))


def _columns(updates: list[Update], terms: list[list[Term]], components: Components) -> list[tuple[Tensor, Tensor]]:
    """Each state without what it writes, for each column of the identity, and that column: only along what mixes, and
    what the coefficients vary along."""
    used = {i for ts in terms for t in ts for i in (*t.coefficient.free, *t.guard.free)} | {n for n, _ in components.axes}
    names = {u.state.name: f"{u.state.name}.columns" for u in updates}
    more = [build.index(m) for m in components.read]

    def part(term: Term, own: tuple[str, ...], kept: list[int]) -> Node:
        name = names[str(term.read.attr)]
        value = build.read(name, [*(term.read.args[k] for k in kept), *more], term.read.dtype)
        return build.reduce("sum", term.over, build.mul(term.coefficient, value), term.guard)

    found = []
    for number, (update, own) in enumerate(zip(updates, terms, strict=True)):
        state = update.state
        kept = [k for k, i in enumerate(state.indices) if i in used or k == update.position]
        indices = (*(state.indices[k] for k in kept), *components.read)
        here = [make("eq", build.index(n), build.index(m)) for n, m in components.axes]
        if components.tag is not None:
            here.append(make("eq", build.index(components.tag[1]), build.const(number)))
        unit = build.where(build.every(here), build.const(build.Fraction(1)), build.const(build.Fraction(0)))
        start = Tensor(f"{names[state.name]}@start", tuple(i for i in indices if i != update.time), state.dtype, "derived", unit)
        rhs = build.total(part(term, indices, kept) for term in own)
        comment = f"what each column of the identity becomes, of which {state.name} would start"
        edge = _edge(update, start.name, kept.index(update.position))
        found.append((Tensor(names[state.name], indices, state.dtype, "derived", rhs, (edge,), comment=comment), start))
    return found


def _given(system: System, loop: Loop, update: Update) -> tuple[Node, dict[str, Tensor]]:
    """The state before all pieces, and the tensors that hold it, or it and those before: what enters the first piece. The
    names that they had are those of what enters this one."""
    start, carry = start_of(system, update, loop, beside=True)
    known, found = {**system.tensors, **{t.name: t for t in carry}}, dict[str, Tensor]()

    def change(node: Node) -> Node:
        name = str(node.attr)
        found[name] = replace(known[name], name=name.replace("@start", "@given").replace("@past", "@before"))
        if (rhs := found[name].rhs) is not None:
            found[name] = replace(found[name], rhs=rebuild_reads(rhs, held(rhs), change))
        return build.read(found[name].name, node.args, node.dtype)

    def held(node: Node) -> set[str]:
        return {n for n in read_names(node) if n.endswith(("@start", "@past"))}

    return rebuild_reads(start, held(start), change), found


def _window(system: System, element: Element, entry: StateEntry) -> list[Tensor]:
    """Of a state that is read several steps back, its last values after the last piece: those of its companions."""
    if entry.tail is build.ONE and entry.boundary is None:
        return []
    past, names = system.tensors.get(f"{entry.tensor}@past"), {u.state.name for u in element.updates}
    if past is None or entry.boundary is not None:
        raise NoMatch(f"`{entry.tensor}` is kept for more than its last steps")
    tensor = system.tensors[entry.tensor]
    index = past.indices[entry.position]
    length = build.value_of(system.indices[index].size or build.ZERO)
    lags = [lag_name(entry.tensor, back) for back in reversed(range(int(length or 0)))]
    if not names.issuperset(lags):
        raise NoMatch(f"`{entry.tensor}` is kept for more steps than its recurrence reads")
    rest = [build.index(i) for k, i in enumerate(tensor.indices) if k != entry.position]
    values = [build.read(f"{name}@final", rest, tensor.dtype) for name in lags]
    comment = f"the last values of {tensor.name}, after the last piece"
    return [Tensor(f"{tensor.name}@kept", past.indices, tensor.dtype, "derived", along(index, values), comment=comment)]


def _exchanged(system: System, loop: Loop, element: Element) -> System:
    """The states begin with what enters the piece, and the state record has what leaves the last one."""
    starts, given = [], dict[str, Tensor]()
    for update in element.updates:
        start, tensors = _given(system, loop, update)
        starts.append(start)
        given |= tensors
    first, components = element.updates[0].state, element.components
    system, side = new_index(system, f"{first.name}.side", 2)
    options = (("acts", element.acts), ("reverse", loop.reverse))
    value = make(
        "across_ranks",
        element.factor,
        components.joined(element.added),
        components.joined(starts),
        attr=((side, *components.kept), components.read, options),
    )
    rest = tuple(i for i in first.indices if i != element.updates[0].time)
    lead = (side,) if components.tag is None else (side, components.tag[0])
    comment = f"{first.name} where this piece begins, and after the last piece"
    ranks = Tensor(f"{first.name}@ranks", (*lead, *rest), value.dtype, "derived", value, comment=comment)
    changed = [*given.values(), ranks]
    finals, record = dict(system.finals), list(system.record or ())
    for number, update in enumerate(element.updates):
        part = [] if components.tag is None else [build.const(number)]
        for place, name in ((0, f"{update.state.name}@start"), (1, final_name(update))):
            at = [build.const(place), *part, *(build.index(i) for i in rest)]
            changed.append(Tensor(name, rest, update.state.dtype, "derived", build.read(ranks.name, at, ranks.dtype)))
        edges = tuple(e for e in update.state.edges if e.position != update.position)
        changed.append(replace(update.state, edges=(*edges, _edge(update, f"{update.state.name}@start"))))
        for k, entry in enumerate(record):
            if entry.tensor == update.state.name:
                window = _window(system, element, entry)
                changed += window
                record[k] = replace(entry, tensor=f"{entry.tensor}@elsewhere")
                finals[entry.name] = window[0].name if window else final_name(update)
    system = system.with_tensors(*changed, drop=tuple(f"{u.state.name}@past" for u in element.updates))
    return replace(system, finals=finals, record=None if system.record is None else tuple(record))
