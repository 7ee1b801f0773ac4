"""Coupled states in chunkwise form: a small matrix for each entry as the decay, with inner reads beside it or without.

States that read each other entry by entry (momentum, lags, a state held for a mini-batch) are the parts p of one state

    X[t,p] = sum_m D[t,p,m] X[t-1,m] + sum_r u_r[t,p] y_r[t] + sum_n k_n[t,p] v_n[t],
    y_r[t] = x_r[t] + sum_p w_r[t,p] . X[t-1,p],

and all of `feedback` and of `chunkwise` holds with products of the matrices D in the place of products of a decay: they
do not commute, and nothing there has needed that. The y are the unknowns of a unit lower triangular system in each
chunk (`block_solve`), after which the writes are known; a read of any of the parts is then a sum over earlier writes
(`block_read`), and no state is formed but the last (`block_state`). A state that is used entry by entry after all is
scanned, its writes being known.

One inner read is one unknown, whatever it is written to: momentum writes the same error into the velocity and, through
it, into the memory. So feedbacks with the same weights are joined, and keep as their left vectors what they differ in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NoMatch, log_of, split_update, states_and_updates, uses
from seqdsl.algebra.cascade import linear_terms
from seqdsl.algebra.monomials import Monomial, factors, monomials
from seqdsl.forms.any_scan import to_any_scan
from seqdsl.forms.block_reads import Block, alone, entries_of, read_out, reads_of, with_finals, writes_of
from seqdsl.forms.feedback import (
    Feedback,
    contracted_rows,
    feedback_tensor,
    feedbacks,
    own_place,
    without_left,
)
from seqdsl.forms.indices import along, new_index
from seqdsl.forms.scan import start_of
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, recurrences
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import make
from seqdsl.ir.system import System, Tensor, live

LARGEST = 8  # parts: a product of their matrices costs the cube


@dataclass(frozen=True)
class _Unknown:
    """An inner read: its weights on the parts that it reads, and the left vectors of those that it is written to."""

    reads: dict[int, Node]
    lefts: dict[int, tuple[Node, ...]]
    ranks: tuple[str, ...]


def coupled(system: System, loop: Loop) -> bool:
    """Does a state read another entry by entry?"""
    if loop.reverse:
        return False
    try:
        terms = linear_terms(system, loop)
    except NoMatch:
        return False
    return any(not t.over and t.read.attr != u.state.name for u, t in terms)


def to_blocks(system: System, loop: Loop, chunk: int, rewrite: Callable[[System, Loop, int], System]) -> System:
    """Rewrite the reads of coupled states, or scan them with their inner reads solved for; `rewrite` is for those that
    nothing but an inner read has coupled. Raises `NoMatch`."""
    system, block, unknowns, rows = _taken_apart(system, loop)
    plain = system
    if unknowns:
        system, block = _solved(system, block, unknowns, rows, chunk)
    system = live(system.with_tensors(*_equations(block), *block.carry)).with_tensors(*block.carry)
    names = {u.state.name for u in block.updates}
    step = rewrite
    # A held state is none of them any more: only the inner read of it, now solved for, has kept it.
    if not all(alone(block, n) for n, u in enumerate(block.updates) if u.state.name in system.tensors):
        try:
            return read_out(system, block, chunk)
        except NoMatch:
            if chunk == 0:
                raise
            system = system if unknowns else plain.with_tensors(*block.carry)  # each by itself, a follower after its leader
        step = _scanned
    several = step is rewrite  # one state alone knows its own last value, and not those before that
    kept = [e for e in entries_of(system, names) if e.boundary is not None or several and e.tail is not build.ONE]
    system = ended = with_finals(system, block, rows, kept)
    while left := [r for r in recurrences(system) if names & set(r.tensors())]:
        system = step(system, left[0], chunk)
    finals = {e.name: ended.finals[e.name] for e in kept}
    return replace(system.with_tensors(*(ended.tensors[n] for n in finals.values())), finals={**system.finals, **finals})


def _scanned(system: System, loop: Loop, chunk: int) -> System:
    return to_any_scan(system, loop)


def _taken_apart(system: System, loop: Loop) -> tuple[System, Block, list[_Unknown], tuple[str, ...]]:
    """The block, its inner reads, and the rows that they contract."""
    updates = states_and_updates(system, loop)
    names = {u.state.name: n for n, u in enumerate(updates)}
    if len({u.state.indices for u in updates}) > 1:
        listed = ", ".join(f"{u.state.name}[{','.join(u.state.indices)}]" for u in updates)
        raise NoMatch(f"the states read each other, and have different indices: {listed}")
    if len(updates) > LARGEST:
        raise NoMatch(f"{len(updates)} states are coupled: products of blocks so large cost more than they save")
    split_ones = [split_update(system, u.rhs, names) for u in updates]
    readers = [t.rhs for t in system.derived() if t.rhs is not None and uses(t.rhs, set(names))]
    taken = frozenset(system.indices) | frozenset(i for rhs in readers for n in walk(rhs) for i in n.free)
    for terms, rest in split_ones:
        taken |= rest.free | {i for t in terms for i in (*t.over, *t.coefficient.free, *t.read.free)}
    entries = [[build.ZERO for _ in updates] for _ in updates]
    inner, starts, carry = [], [], []
    for n, (update, (terms, _)) in enumerate(zip(updates, split_ones, strict=True)):
        begin, made = start_of(system, update, loop)
        starts.append(begin)
        carry += made
        for term in terms:
            source = names[str(term.read.attr)]
            if term.over:
                inner.append((n, source, term))
                continue
            own_place(update, term)
            value = build.where(term.guard, term.coefficient, build.ZERO)
            entries[n][source] = build.add(entries[n][source], value)
    rows = contracted_rows(updates, inner) if inner else ()
    found = [f for n, m, term in inner for f in feedbacks(updates, n, m, term, build.ONE, taken)]
    logs = [[_log(x, system) for x in row] for row in entries]
    log = all(x is not None for row in logs for x in row)
    system, part = new_index(system, f"{updates[0].state.name}.block", len(updates))
    read = f"{part}'"  # primed: over the same parts
    decay = along(part, [along(read, [x for x in row if x is not None]) for row in (logs if log else entries)])
    known = [monomials(rest, taken, frozenset(rows)) for _, rest in split_ones]
    block = Block(updates, entries, decay, log, along(part, starts), part, read, known, carry)
    return system, block, _joined(found, frozenset(rows)), rows


def _log(entry: Node, system: System) -> Node | None:
    """The log of an entry, -inf where a part does not take another over."""
    return build.neg(build.const("inf")) if entry is build.ZERO else log_of(entry, system)


def _joined(found: list[Feedback], rows: frozenset[str]) -> list[_Unknown]:
    """One unknown for the feedbacks that differ in where they are written, or in the part that they read."""
    same: dict[object, list[tuple[Feedback, list[Node], Counter[Node]]]] = {}
    for f in found:
        vector = [x for x in factors(f.right) if x.free & rows]
        scalars = Counter(x for x in factors(f.right) if not x.free & rows)
        key = (f.source, frozenset(Counter(vector).items()), f.ranks)
        again = sum(g.target == f.target for g, _, _ in same.get(key, []))
        same.setdefault((*key, again) if again else key, []).append((f, vector, scalars))
    unknowns: list[_Unknown] = []
    for group in same.values():
        first, vector, common = group[0]
        for _, _, scalars in group:
            common = common & scalars
        lefts = {f.target: _numbers_first([*f.left, *(scalars - common).elements()]) for f, _, scalars in group}
        weight = build.product(_numbers_first([*vector, *common.elements()]))
        one = _Unknown({first.source: weight}, lefts, first.ranks)
        for n, other in enumerate(unknowns):
            if other.lefts == one.lefts and other.ranks == one.ranks and first.source not in other.reads:
                unknowns[n] = replace(other, reads={**other.reads, **one.reads})
                break
        else:
            unknowns.append(one)
    return unknowns


def _numbers_first(parts: list[Node]) -> tuple[Node, ...]:
    return tuple(sorted(parts, key=lambda f: build.value_of(f) is None))


def _solved(system: System, block: Block, unknowns: list[_Unknown], rows: tuple[str, ...], chunk: int) -> tuple[System, Block]:
    """The block with what the inner reads write among its known writes."""
    name = block.state.name
    if len(unknowns) > 1 and any(u.ranks for u in unknowns):
        raise NoMatch(f"`{name}` is read through sums of different ranks")
    system, rank = new_index(system, f"{name}.rank", len(unknowns)) if len(unknowns) > 1 else (system, "")
    ranks = (rank,) if rank else unknowns[0].ranks
    inside, known = _share(unknowns, block.known, frozenset(rows))
    others = writes_of(replace(block, known=known), rows)
    weights = [block.along_parts(u.reads) for u in unknowns]
    given = [
        build.add(x, reads_of(block, w, others, build.ZERO, rows, strict=True, chunk=chunk)) if others else x
        for x, w in zip(inside, weights, strict=True)
    ]
    left = [block.along_parts({n: build.product(f) for n, f in u.lefts.items()}) for u in unknowns]
    operands = (along(rank, weights), along(rank, left), along(rank, given), block.decay, block.start)
    attr = ((block.time, *ranks), (block.part, block.read, *rows), (("chunk", chunk), ("log", block.log)))
    y = feedback_tensor(name, make("block_solve", *operands, attr=attr), (block.time, *ranks), block.state.indices)
    for k, unknown in enumerate(unknowns):
        at = [build.const(k) if i == rank else build.index(i) for i in y.indices]
        for n, factor in unknown.lefts.items():
            known[n].append(([*factor, build.read(y.name, at, y.dtype)], unknown.ranks))
    return system.with_tensors(y), replace(block, known=known)


def _share(
    unknowns: list[_Unknown], known: list[list[Monomial]], rows: frozenset[str]
) -> tuple[list[Node], list[list[Monomial]]]:
    """Known writes along the left vectors of an unknown, in every part that has one, join its right side."""
    known = [list(k) for k in known]
    inside = []
    for unknown in unknowns:
        found = build.ZERO
        (first, left), *more = unknown.lefts.items()
        for monomial in list(known[first]):
            rest = without_left(*monomial, left, unknown.ranks, rows)
            if rest is None:
                continue
            same = {first: monomial}
            for n, other in more:
                for m in known[n]:
                    again = without_left(*m, other, unknown.ranks, rows)
                    if again is not None and Counter(again) == Counter(rest):
                        same[n] = m
                        break
            if len(same) == len(unknown.lefts):
                found = build.add(found, build.product(rest))
                for n, m in same.items():
                    known[n].remove(m)
        inside.append(found)
    return inside, known


def _equations(block: Block) -> list[Tensor]:
    """The parts' recurrences, their writes being known."""
    found = []
    for n, update in enumerate(block.updates):
        rhs = build.ZERO
        for m, source in enumerate(block.updates):
            rhs = build.add(rhs, build.mul(block.entries[n][m], source.before()))
        for parts, over in block.known[n]:
            rhs = build.add(rhs, build.reduce("sum", over, build.product(parts)))
        found.append(replace(update.state, rhs=rhs))
    return found
