"""The scan of a recurrence, over the smallest monoid that holds its steps: entries, frequencies, matrices, or entries of
another ring."""

from __future__ import annotations

from seqdsl.algebra.affine import NotAffine
from seqdsl.algebra.held import has_boundaries, with_held
from seqdsl.algebra.lags import has_lags, with_companions
from seqdsl.forms.circular import to_spectral_scan
from seqdsl.forms.dense import to_matrix_scan
from seqdsl.forms.ring import to_ring_scan
from seqdsl.forms.scan import both, to_scan
from seqdsl.ir.dependence import Loop
from seqdsl.ir.system import System


def to_any_scan(system: System, loop: Loop) -> System:
    """The first of the scans that the update admits, with a state for each value that is read further back than one
    step. Raises `NotAffine` with every reason."""
    if has_boundaries(system, loop):
        system, loop = with_held(system, loop)
    if has_lags(system, loop):
        system, loop = with_companions(system, loop)
    reason: NotAffine | None = None
    for rewrite in (to_scan, to_spectral_scan, to_matrix_scan, to_ring_scan):
        try:
            return rewrite(system, loop)
        except NotAffine as other:
            reason = other if reason is None else both(reason, other)
    assert reason is not None
    raise reason
