"""Cascades: a recurrence with those that follow it, entry by entry, as one recurrence of several states.

`M[t] = a M[t-1] + x`, `S[t] = b S[t-1] + M[t]` are two recurrences, computed one after the other: S does not feed back.
But stepping M to know S forms every M[t], which a contraction of S does not need; as one recurrence of (M, S), with a
triangular block for each entry, neither is formed.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import NoMatch, Term, Update, split_update, states_and_updates, uses
from seqdsl.ir.dependence import Compute, Loop, recurrences
from seqdsl.ir.system import System, sources

LONGEST = 8  # tensors of a step: a block of more states is not formed


def with_followers(system: System, loop: Loop) -> Loop:
    """The loop together with every recurrence that is affine in its states, entry by entry, and so on; alone where
    these are too many for one block."""
    together = loop
    while (longer := _with_one_more(system, together)) is not None:
        if len(longer.tensors()) > LONGEST:
            return loop
        together = longer
    return together


def _with_one_more(system: System, loop: Loop) -> Loop | None:
    if not _steps_alone(loop) or not _may_be_followed(system, loop):
        return None
    members = set(loop.tensors())
    for other in recurrences(system):
        if other.axis != loop.axis or not _steps_alone(other) or set(other.tensors()) & members:
            continue
        rules = [system.tensors[n].rhs for n in other.tensors()]
        if not any(rhs is not None and uses(rhs, members) for rhs in rules):
            continue
        together = replace(loop, body=(*loop.body, *other.body), positions=loop.positions + other.positions)
        if _follows(system, loop, other, together):
            return together
    return None


def _steps_alone(loop: Loop) -> bool:
    return not loop.reverse and all(isinstance(s, Compute) for s in loop.body)


def _may_be_followed(system: System, loop: Loop) -> bool:
    """Does anything of the shape of a state read one? Where nothing does, the schedule need not be worked out."""
    members = set(loop.tensors())
    shapes = {system.tensors[n].indices for n in members}
    return any(
        t.indices in shapes and t.name not in members and t.rhs is not None and uses(t.rhs, members)
        for t in system.derived()
    )


def _follows(system: System, loop: Loop, other: Loop, together: Loop) -> bool:
    """Does a state of the other loop read one of this loop, entry by entry, and nothing else that depends on them?"""
    mine, theirs = set(loop.tensors()), set(other.tensors())
    outside = set().union(*(sources(system, system.tensors[n]) for n in theirs)) - theirs - mine
    if _depends(system, outside, mine):
        return False
    try:
        terms = linear_terms(system, together)
    except NoMatch:
        return False
    follows = any(u.state.name in theirs and t.read.attr in mine and not t.over for u, t in terms)
    return follows and len({u.state.indices for u, _ in terms}) == 1


def linear_terms(system: System, loop: Loop) -> list[tuple[Update, Term]]:
    """What each state of a recurrence reads of the states, term by term. Raises `NoMatch`."""
    updates = states_and_updates(system, loop)
    names = {u.state.name for u in updates}
    return [(u, t) for u in updates for t in split_update(system, u.rhs, names)[0]]


def _depends(system: System, names: set[str], on: set[str]) -> bool:
    seen, pending = set(names), list(names)
    while pending:
        found = sources(system, system.tensors[pending.pop()])
        if found & on:
            return True
        pending += found - seen
        seen |= found
    return False
