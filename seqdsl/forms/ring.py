"""Scan over another ring than (+, *): running maxima, log-sum-exp states, reachability (DERIVATIONS 1.3).

`S[t] = (a[t] mul S[t-1]) add b[t]`: maps of this kind compose associatively because mul distributes over add. Where the
ring has no element for "nothing yet" but an infinity, the state starts from what the equations say, not from it.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import NoMatch, Update, states_and_updates
from seqdsl.algebra.semirings import RINGS, coefficients, ring_of
from seqdsl.forms.scan import start_of
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.system import System

NAMES = {
    "max +": "max_plus",
    "min +": "min_plus",
    "logaddexp +": "logaddexp_plus",
    "or and": "or_and",
    "max *": "max_times",
}


def over_ring(system: System, loop: Loop) -> tuple[Update, str, Node, Node]:
    """The one state of a loop, the ring that its update is affine over, and a and b. Raises `NoMatch`."""
    updates = states_and_updates(system, loop)
    name = ring_of(updates)
    if name is None:
        raise NoMatch("the update is affine over no ring of the table")
    if len(updates) > 1:
        raise NoMatch(f"the states {', '.join(f'`{u.state.name}`' for u in updates)} are coupled")
    return updates[0], name, *coefficients(updates[0], next(r for r in RINGS if r.name == name))


def to_ring_scan(system: System, loop: Loop) -> System:
    """Replace the state's equation by `ring_scan`. Raises `NoMatch`."""
    update, name, a, b = over_ring(system, loop)
    start, carry = start_of(system, update, loop, beside=True)
    attr = ((update.time,), (), (("reverse", loop.reverse), ("ring", NAMES[name])))
    return system.with_tensors(replace(update.state, rhs=make("ring_scan", a, b, start, attr=attr)), *carry)
