"""Scan over another ring than (+, *): running maxima, log-sum-exp states, reachability (DERIVATIONS 1.3).

`S[t] = (a[t] mul S[t-1]) add b[t]`: maps of this kind compose associatively because mul distributes over add. Where the
ring has no element for "nothing yet" but an infinity, the state starts from what the equations say, not from it.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import NoMatch, Update, states_and_updates
from seqdsl.algebra.semirings import Ring, coefficients, ring_of
from seqdsl.forms.scan import start_of
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.system import System


def over_ring(system: System, loop: Loop) -> tuple[Update, Ring, Node, Node]:
    """The one state of a loop, the ring that its update is affine over, and a and b. Raises `NoMatch`."""
    updates = states_and_updates(system, loop)
    ring = ring_of(updates)
    if ring is None:
        raise NoMatch("the update is affine over no ring of the table")
    if len(updates) > 1:
        raise NoMatch(f"the states {', '.join(f'`{u.state.name}`' for u in updates)} are coupled")
    return updates[0], ring, *coefficients(updates[0], ring)


def to_ring_scan(system: System, loop: Loop) -> System:
    """Replace the state's equation by `ring_scan`. Raises `NoMatch`."""
    update, ring, a, b = over_ring(system, loop)
    start, carry = start_of(system, update, loop, beside=True)
    attr = ((update.time,), (), (("reverse", loop.reverse), ("ring", ring.option)))
    return system.with_tensors(replace(update.state, rhs=make("ring_scan", a, b, start, attr=attr)), *carry)
