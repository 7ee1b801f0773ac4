"""Scan of a recurrence whose state is convolved around an axis: over its spectrum, entry by entry."""

from __future__ import annotations

from seqdsl.algebra.affine import NoMatch, states_and_updates
from seqdsl.algebra.circular import with_spectrum
from seqdsl.forms.scan import start_of, to_scan
from seqdsl.ir.dependence import Loop
from seqdsl.ir.system import System


def to_spectral_scan(system: System, loop: Loop) -> System:
    """Transform, scan, transform back. Raises `NoMatch` where the update is no circular convolution."""
    updates = states_and_updates(system, loop)
    if len(updates) != 1:
        raise NoMatch("several states read each other")
    start, carry = start_of(system, updates[0], loop)
    system, inner = with_spectrum(system.with_tensors(*carry), loop, start)
    return to_scan(system, inner)
