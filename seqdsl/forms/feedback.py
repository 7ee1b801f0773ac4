"""Inner reads become unknowns: a recurrence of rank r becomes an entrywise one whose writes are known.

A low-rank step `S[t] = a S[t-1] + sum_r u_r (w_r . S[t-1]) + sum_m k_m v_m` contracts the state along its rows. Call what
it adds along the left vectors y; then

    S[t]   = a S[t-1] + sum_r u_r[t] y_r[t] + sum_m k_m[t] v_m[t]                     entrywise: the writes are known,
    y_r[t] = x_r[t] + w_r[t] . S'[t-1],      S'[t] = a S'[t-1] + sum_r u_r[t] y_r[t]  the feedback `decayed_solve`,

where x_r is what the other writes answer, `w_r . (state of the k_m v_m alone)`. Inside a chunk the y solve a unit lower
triangular system (DERIVATIONS 2.2): this is the WY or UT form of every delta rule, of any rank, with any decay. A write
along the same left vector, `k_m = u_r`, joins x_r directly, and needs no state of its own (the Z form).

The rewriting needs no other property than that the update is affine: `S = S' + (state of the k_m v_m alone)` is the
superposition of the writes. What is left is the entrywise class, whose forms then apply as they stand. A read of the
decayed state, w . (a S[t-1]), keeps the decay out of w, so that nothing is multiplied by a decay twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.algebra.affine import (
    Diagonal,
    Monomial,
    NotAffine,
    Term,
    Update,
    factors,
    log_of,
    monomials,
    split_update,
    states_and_updates,
)
from seqdsl.forms.scan import starting_value
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, recurrences
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.system import Index, System, Tensor


@dataclass(frozen=True)
class Feedback:
    """One inner read that is written back: `u * (w . S[t-1])`, for each of the rank indices."""

    left: tuple[Node, ...]  # the factors of u: they mention rows
    right: Node  # w along the rows, and every factor that mentions none
    ranks: tuple[str, ...]
    after: bool  # does it read the decayed state? (the decay is then no factor of w)


def without_feedback(system: System, loop: Loop, chunk: int = 64) -> System:
    """Replace each low-rank state's equation by an entrywise one with known writes. Raises `NotAffine`."""
    if loop.reverse:
        raise NotAffine("the recurrence runs backwards, and reads its own state through a sum")
    updates = states_and_updates(system, loop)
    if len(updates) > 1:
        names = ", ".join(f"`{u.state.name}`" for u in updates)
        raise NotAffine(f"the states {names} are coupled through a sum over their rows")
    (update,) = updates
    return _one_state(system, loop, update, chunk)


def loop_of(system: System, name: str) -> Loop:
    """The recurrence that a tensor belongs to."""
    return next(loop for loop in recurrences(system) if name in loop.tensors())


def _one_state(system: System, loop: Loop, update: Update, chunk: int) -> System:
    name = update.state.name
    terms, rest = split_update(system, update.rhs, lambda r: r.attr == name)
    entrywise, inner = [t for t in terms if not t.over], [t for t in terms if t.over]
    for term in entrywise:
        _plain(update, term)
    decay = build.total(t.coefficient for t in entrywise)
    taken = frozenset(i for t in terms for i in (*t.over, *t.coefficient.free, *t.read.free)) | rest.free
    found = [f for t in inner for f in _feedbacks(update, t, decay, taken)]
    rows = _rows(update, inner)
    after = bool(found) and all(f.after for f in found)
    if not after:
        found = [_before(f, decay, rows) for f in found]
    state = Diagonal(update, decay, log_of(decay), rest)
    start, carry = starting_value(system, state, loop)
    system, joined = _joined(system, name, found, rows)
    known = monomials(rest, taken)
    inside, outside = _share(joined, known)
    x = build.add(inside, _answers(state, joined, outside, rows, after=after, chunk=chunk))
    log = state.log_decay is not None
    attr = ((update.time, *joined.ranks), rows, (("after", after), ("chunk", chunk), ("log", log)))
    decayed = state.log_decay if state.log_decay is not None else decay
    solve = make("decayed_solve", joined.right, build.product(joined.left), x, decayed, start, attr=attr)
    order = [i for i in update.state.indices if i in solve.free and i not in rows and i != update.time]
    extra = sorted(solve.free - {*order, *joined.ranks, update.time})
    indices = (update.time, *joined.ranks, *order, *extra)
    y = Tensor(
        f"{name}.feedback",
        indices,
        solve.dtype,
        "derived",
        solve,
        comment=f"what {name} answers and takes back: the unknowns of a triangular system in each chunk",
    )
    written = build.mul(build.product(joined.left), build.read(y.name, [build.index(i) for i in indices], y.dtype))
    write = build.reduce("sum", joined.ranks, written)
    for parts, over in outside:
        write = build.add(write, build.reduce("sum", over, build.product(parts)))
    before = build.read(
        name,
        [build.sub(build.index(i), build.ONE) if i == update.time else build.index(i) for i in update.state.indices],
        update.state.dtype,
    )
    rhs = build.add(build.mul(decay, before), write)
    return system.with_tensors(replace(update.state, rhs=rhs), y, *carry)


def _plain(update: Update, term: Term) -> None:
    """An entrywise term reads the state at its own place."""
    for position, (own, subscript) in enumerate(zip(update.state.indices, term.read.args, strict=True)):
        if position != update.position and subscript is not build.index(own):
            raise NotAffine(f"`{term.read!r}` reads the state at another place of `{own}`")


def _rows(update: Update, inner: list[Term]) -> tuple[str, ...]:
    """The indices of the state that the inner reads contract, the same for all of them."""
    found = {tuple(i for i, _ in _contracted(update, t)) for t in inner}
    if len(found) > 1:
        listed = " and over ".join(",".join(rows) for rows in sorted(found))
        raise NotAffine(f"inner reads contract over {listed}: no triangular system has both kinds of unknowns")
    return found.pop() if found else ()


def _contracted(update: Update, term: Term) -> list[tuple[str, str]]:
    """(index of the state, the summed index it is read at) for each contracted position."""
    pairs = []
    for position, (own, subscript) in enumerate(zip(update.state.indices, term.read.args, strict=True)):
        if position == update.position or subscript is build.index(own):
            if own in term.over and position != update.position:
                pairs.append((own, own))
            continue
        if subscript.op != "index" or str(subscript.attr) not in term.over:
            raise NotAffine(f"`{term.read!r}` reads the state at another place of `{own}`")
        pairs.append((own, str(subscript.attr)))
    return pairs


def _feedbacks(update: Update, term: Term, decay: Node, taken: frozenset[str]) -> list[Feedback]:
    """The term as products `u * (w . S)`: a factor that ties a row to a summed row is a matrix, of no low rank."""
    pairs = {b: a for a, b in _contracted(update, term)}
    if any(a == b for b, a in pairs.items()):
        raise NotAffine(
            f"`{update.state.name}` is summed over {', '.join(pairs)}, and the sum is not written back to it"
        )
    own = frozenset(pairs.values())
    coefficient = build.where(term.guard, term.coefficient, build.ZERO)
    found = []
    for parts, over in monomials(coefficient, taken):
        left = tuple(f for f in parts if f.free & own)
        right = [f for f in parts if not f.free & own]
        for factor in left:
            if factor.free & frozenset(pairs):
                raise NotAffine(
                    f"the factor `{factor!r}` is a matrix over the rows: the step is dense, not of low rank"
                )
        ranks = (*(i for i in term.over if i not in pairs), *over)
        right, after = _without_decay(right, decay, pairs)
        w = build.substitute(build.product(right), {b: build.index(a) for b, a in pairs.items()})
        found.append(Feedback(left, w, ranks, after))
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


def _before(feedback: Feedback, decay: Node, rows: tuple[str, ...]) -> Feedback:
    """The same read of the state before the decay."""
    return replace(feedback, right=build.mul(feedback.right, decay), after=False) if feedback.after else feedback


def _joined(system: System, name: str, found: list[Feedback], rows: tuple[str, ...]) -> tuple[System, Feedback]:
    """Several inner reads as one with a rank index of its own: they are concatenated along it."""
    if len(found) == 1:
        return system, found[0]
    if any(f.ranks for f in found):
        raise NotAffine(f"`{name}` reads itself through sums of different ranks")
    rank = build.fresh(f"{name}.rank", system.indices)
    index = build.index(rank)
    system = replace(system, indices={**system.indices, rank: Index(rank, rank, build.const(len(found)))})
    left, right = build.ZERO, build.ZERO
    for k, feedback in reversed(list(enumerate(found))):
        here = build.make("eq", index, build.const(k))
        left = build.where(here, build.product(feedback.left), left)
        right = build.where(here, feedback.right, right)
    return system, Feedback((left,), right, (rank,), found[0].after)


def _share(joined: Feedback, known: list[Monomial]) -> tuple[Node, list[Monomial]]:
    """Known writes along the feedback's own left vector join its right side; the others stay."""
    inside, outside = build.ZERO, []
    for parts, over in known:
        names = dict(zip(over, joined.ranks, strict=True)) if len(over) == len(joined.ranks) else None
        rest = None
        if names is not None:
            moved = [build.substitute(f, {a: build.index(b) for a, b in names.items()}) for f in parts]
            rest = _less(moved, joined.left)
        if rest is None:
            outside.append((parts, over))
        else:
            inside = build.add(inside, build.product(rest))
    return inside, outside


def _less(parts: list[Node], left: tuple[Node, ...]) -> list[Node] | None:
    rest = list(parts)
    for factor in left:
        if factor not in rest:
            return None
        rest.remove(factor)
    return rest


def _answers(
    state: Diagonal, joined: Feedback, outside: list[Monomial], rows: tuple[str, ...], *, after: bool, chunk: int
) -> Node:
    """What the state of the other writes alone answers to the inner reads."""
    update = state.update
    log = state.log_decay is not None
    decay = state.decay if state.log_decay is None else state.log_decay
    q = build.mul(joined.right, state.decay) if after else joined.right
    attr = ((update.time,), rows, (("chunk", chunk), ("log", log), ("strict", True)))
    result = build.ZERO
    for parts, over in outside:
        left = [f for f in parts if f.free & frozenset(rows)]
        right = [f for f in parts if not f.free & frozenset(rows)]
        node = make("decayed_read", q, build.product(left), build.product(right), decay, build.ZERO, attr=attr)
        result = build.add(result, build.reduce("sum", over, node))
    return result
