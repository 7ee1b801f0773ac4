"""Inner reads become unknowns: a recurrence of rank r becomes entrywise ones whose writes are known.

A low-rank step `S[t] = a S[t-1] + sum_r u_r (w_r . S[t-1]) + sum_m k_m v_m` contracts the state along its rows. Call what
it adds along the left vectors y; then

    S[t]   = a S[t-1] + sum_r u_r[t] y_r[t] + sum_m k_m[t] v_m[t]                     entrywise: the writes are known,
    y_r[t] = x_r[t] + w_r[t] . S'[t-1],      S'[t] = a S'[t-1] + sum_r u_r[t] y_r[t]  the feedback `decayed_solve`,

where x_r is what the other writes answer, `w_r . (state of the k_m v_m alone)`. Inside a chunk the y solve a unit lower
triangular system (DERIVATIONS 2.2): this is the WY or UT form of every delta rule, of any rank, with any decay. A write
along the same left vector, `k_m = u_r`, joins x_r directly, and needs no state of its own (the Z form).

Several states that read each other through such sums are one state for the feedback: they are stacked along the rows,
with an index that says which of them a row belongs to; afterwards each is an entrywise recurrence of its own again.

The rewriting needs no other property than that the update is affine: `S = S' + (state of the k_m v_m alone)` is the
superposition of the writes. What is left is the entrywise class, whose forms then apply as they stand. A read of the
decayed state, w . (a S[t-1]), keeps the decay out of w, so that nothing is multiplied by a decay twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.algebra.affine import Diagonal, NoMatch, Term, Update, log_of, split_update, states_and_updates
from seqdsl.algebra.monomials import Monomial, factors, monomials
from seqdsl.forms.indices import along, new_index
from seqdsl.forms.scan import start_of
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.system import System, Tensor


@dataclass(frozen=True)
class _State:
    """A state without its inner reads, and the value it starts from."""

    entrywise: Diagonal
    start: Node
    known: list[Monomial]


@dataclass(frozen=True)
class Feedback:
    """One inner read that is written back: `u * (w . S[t-1])`, for each of the rank indices."""

    target: int  # which state it is written to, and which it reads
    source: int
    left: tuple[Node, ...]  # the factors of u: they mention rows
    right: Node  # w along the rows, and every factor that mentions none
    ranks: tuple[str, ...]
    after: bool  # does it read the decayed state? (the decay is then no factor of w)


def without_feedback(system: System, loop: Loop, chunk: int = 64) -> System:
    """Replace each low-rank state's equation by an entrywise one with known writes. Raises `NoMatch`."""
    if loop.reverse:
        raise NoMatch("the recurrence runs backwards, and reads its own state through a sum")
    updates = states_and_updates(system, loop)
    states, found, rows, carry = _taken_apart(system, loop, updates)
    after = all(f.after for f in found)
    if not after:
        found = [before_decay(f, states[f.source].entrywise.decay) for f in found]
    name = states[0].entrywise.update.state.name
    time = states[0].entrywise.update.time
    system, rank = _rank_index(system, name, found)
    system, tag = _tag_index(system, name, len(states))
    shared, outside = _share(found, states, frozenset(rows))
    x = along(rank, [build.add(i, _answers(states[f.source], f, outside, rows, after, chunk)) for f, i in shared])
    w = along(rank, [_tagged(tag, f.source, f.right) for f in found])
    u = along(rank, [_tagged(tag, f.target, build.product(f.left)) for f in found])
    log = all(s.entrywise.log for s in states)
    decay = along(tag, [s.entrywise.operand if log else s.entrywise.decay for s in states])
    start = along(tag, [s.start for s in states])
    ranks = (rank,) if rank else found[0].ranks
    attr = ((time, *ranks), (*([tag] if tag else []), *rows), (("after", after), ("chunk", chunk), ("log", log)))
    solve = make("decayed_solve", w, u, x, decay, start, attr=attr)
    y = feedback_tensor(name, solve, (time, *ranks), updates[0].state.indices)
    changed = [_equation(s, n, found, outside[n], y, rank) for n, s in enumerate(states)]
    return system.with_tensors(*changed, y, *carry)


def _taken_apart(
    system: System, loop: Loop, updates: list[Update]
) -> tuple[list[_State], list[Feedback], tuple[str, ...], list[Tensor]]:
    """The states without their inner reads, the inner reads, the rows that they contract, tensors that hold starts."""
    names = {u.state.name: n for n, u in enumerate(updates)}
    states, carry, inner = [], [], []
    taken = frozenset(system.indices)
    for n, update in enumerate(updates):
        terms, rest = split_update(system, update.rhs, names)
        for term in terms:
            if not term.over:
                if term.read.attr != update.state.name:
                    raise NoMatch(f"`{update.state.name}` reads the state `{term.read.attr}` entry by entry")
                own_place(update, term)
        decay = build.total(t.coefficient for t in terms if not t.over)
        log = log_of(decay) if update.state.dtype in ("real", "complex") else None
        entrywise = Diagonal(update, decay, log, rest)
        start, made = start_of(system, update, loop)
        carry += made
        taken |= frozenset(i for t in terms for i in (*t.over, *t.coefficient.free, *t.read.free)) | rest.free
        states.append(_State(entrywise, start, []))
        inner += [(n, names[str(t.read.attr)], t) for t in terms if t.over]
    if not inner:
        raise NoMatch("no inner read is written back")
    rows = contracted_rows(updates, inner)
    states = [replace(s, known=monomials(s.entrywise.write, taken, frozenset(rows))) for s in states]
    found = []
    for target, source, term in inner:
        found += feedbacks(updates, target, source, term, states[source].entrywise.decay, taken)
    return states, found, rows, carry


def own_place(update: Update, term: Term) -> None:
    """An entrywise term reads the state at its own place."""
    if len(term.read.args) != len(update.state.indices):
        raise NoMatch(f"`{term.read!r}` and `{update.state.name}` have different indices")
    for position, (own, subscript) in enumerate(zip(update.state.indices, term.read.args, strict=True)):
        if position != update.position and subscript is not build.index(own):
            raise NoMatch(f"`{term.read!r}` reads the state at another place of `{own}`")


def contracted_rows(updates: list[Update], inner: list[tuple[int, int, Term]]) -> tuple[str, ...]:
    """The indices that the inner reads contract, the same for all of them, and for all states."""
    found = {tuple(i for i, _ in _contracted(updates[source], term)) for _, source, term in inner}
    if len(found) > 1:
        listed = " and over ".join(",".join(rows) for rows in sorted(found))
        raise NoMatch(f"inner reads contract over {listed}: no triangular system has both kinds of unknowns")
    if len({u.state.indices for u in updates}) > 1:
        listed = ", ".join(f"{u.state.name}[{','.join(u.state.indices)}]" for u in updates)
        raise NoMatch(f"the states read each other, and have different indices: {listed}")
    return found.pop()


def _contracted(source: Update, term: Term) -> list[tuple[str, str]]:
    """(index of the state, the summed index it is read at) for each contracted position."""
    pairs = []
    for position, (own, subscript) in enumerate(zip(source.state.indices, term.read.args, strict=True)):
        if position == source.position or subscript is build.index(own):
            continue
        if subscript.op != "index" or str(subscript.attr) not in term.over:
            raise NoMatch(f"`{term.read!r}` reads the state at another place of `{own}`")
        pairs.append((own, str(subscript.attr)))
    return pairs


def feedbacks(
    updates: list[Update], target: int, source: int, term: Term, decay: Node, taken: frozenset[str]
) -> list[Feedback]:
    """The term as products `u * (w . S)`: a factor that ties a row to a summed row is a matrix, of no low rank."""
    pairs = {b: a for a, b in _contracted(updates[source], term)}
    own = frozenset(pairs.values())
    coefficient = build.where(term.guard, term.coefficient, build.ZERO)
    found = []
    for parts, over in monomials(coefficient, taken):
        left = tuple(f for f in parts if f.free & own)
        right = [f for f in parts if not f.free & own]
        for factor in left:
            if factor.free & frozenset(pairs):
                raise NoMatch(
                    f"the factor `{factor!r}` is a matrix over the rows: the step is dense, not of low rank"
                )
        ranks = (*(i for i in term.over if i not in pairs), *over)
        right, after = _without_decay(right, decay, pairs)
        w = build.substitute(build.product(right), {b: build.index(a) for b, a in pairs.items()})
        found.append(Feedback(target, source, left, w, ranks, after))
    return found


def _without_decay(right: list[Node], decay: Node, pairs: dict[str, str]) -> tuple[list[Node], bool]:
    """Take the decay out of a read of the decayed state; where the decay is 1 there is nothing to tell apart."""
    there = build.substitute(decay, {a: build.index(b) for b, a in pairs.items()})
    rest = list(right)
    for factor in factors(there):
        if factor is build.ONE:
            continue
        if factor not in rest:
            return right, False
        rest.remove(factor)
    return rest, True


def before_decay(feedback: Feedback, decay: Node) -> Feedback:
    """The same read of the state before the decay."""
    return replace(feedback, right=build.mul(feedback.right, decay), after=False) if feedback.after else feedback


def _rank_index(system: System, name: str, found: list[Feedback]) -> tuple[System, str]:
    """An index along which several inner reads are concatenated; none for a single one, which may have its own."""
    if len(found) == 1:
        return system, ""
    if any(f.ranks for f in found):
        raise NoMatch(f"`{name}` is read through sums of different ranks")
    return new_index(system, f"{name}.rank", len(found))


def _tag_index(system: System, name: str, count: int) -> tuple[System, str]:
    """An index that says which of several states a row belongs to."""
    return (system, "") if count == 1 else new_index(system, f"{name}.part", count)


def _tagged(tag: str, state: int, vector: Node) -> Node:
    """A vector over the rows of one state, among those of all."""
    if not tag:
        return vector
    return build.where(build.make("eq", build.index(tag), build.const(state)), vector, build.ZERO)


def _share(
    found: list[Feedback], states: list[_State], rows: frozenset[str]
) -> tuple[list[tuple[Feedback, Node]], list[list[Monomial]]]:
    """Known writes along a feedback's own left vector join its right side; the others stay with their state."""
    inside = [build.ZERO for _ in found]
    outside: list[list[Monomial]] = [[] for _ in states]
    for n, state in enumerate(states):
        for parts, over in state.known:
            for k, feedback in enumerate(found):
                mine = feedback.target == n
                rest = without_left(parts, over, feedback.left, feedback.ranks, rows) if mine else None
                if rest is not None:
                    inside[k] = build.add(inside[k], build.product(rest))
                    break
            else:
                outside[n].append((parts, over))
    return list(zip(found, inside, strict=True)), outside


def without_left(
    parts: list[Node], over: tuple[str, ...], left: tuple[Node, ...], ranks: tuple[str, ...], rows: frozenset[str]
) -> list[Node] | None:
    """What is left of a write without a feedback's left vector, the same in all rows; None where it has another one."""
    if len(over) != len(ranks):
        return None
    names = {a: build.index(b) for a, b in zip(over, ranks, strict=True)}
    rest = [build.substitute(f, names) for f in parts]
    for factor in left:
        if factor not in rest:
            return None
        rest.remove(factor)
    return None if any(f.free & rows for f in rest) else rest


def _answers(
    source: _State,
    feedback: Feedback,
    outside: list[list[Monomial]],
    rows: tuple[str, ...],
    after: bool,
    chunk: int,
) -> Node:
    """What the state of the other writes alone answers to an inner read."""
    state = source.entrywise
    q = build.mul(feedback.right, state.decay) if after else feedback.right
    attr = ((state.update.time,), rows, (("chunk", chunk), ("log", state.log), ("strict", True)))
    result = build.ZERO
    for parts, over in outside[feedback.source]:
        left = [f for f in parts if f.free & frozenset(rows)]
        right = [f for f in parts if not f.free & frozenset(rows)]
        node = make("decayed_read", q, build.product(left), build.product(right), state.operand, build.ZERO, attr=attr)
        result = build.add(result, build.reduce("sum", over, node))
    return result


def feedback_tensor(name: str, solve: Node, lead: tuple[str, ...], state: tuple[str, ...]) -> Tensor:
    """The unknowns of a state as a tensor: over `lead` (time, ranks), then in the order of the state's own indices."""
    order = [i for i in state if i in solve.free and i not in lead]
    extra = sorted(solve.free - {*order, *lead})
    return Tensor(
        f"{name}.feedback",
        (*lead, *order, *extra),
        solve.dtype,
        "derived",
        solve,
        comment=f"what {name} answers and takes back: the unknowns of a triangular system in each chunk",
    )


def _equation(
    state: _State, number: int, found: list[Feedback], outside: list[Monomial], y: Tensor, rank: str
) -> Tensor:
    """The state's entrywise recurrence, with what the feedback adds as a known write."""
    update = state.entrywise.update
    write = build.ZERO
    for k, feedback in enumerate(found):
        if feedback.target == number:
            at = [build.const(k) if i == rank else build.index(i) for i in y.indices]
            term = build.mul(build.product(feedback.left), build.read(y.name, at, y.dtype))
            write = build.add(write, build.reduce("sum", feedback.ranks, term))
    for parts, over in outside:
        write = build.add(write, build.reduce("sum", over, build.product(parts)))
    return replace(update.state, rhs=build.add(build.mul(state.entrywise.decay, update.before()), write))
