"""The convolution of a time-invariant recurrence: with powers of its decays, or of the matrix of its step."""

from __future__ import annotations

from seqdsl.algebra.affine import NoMatch, neither
from seqdsl.algebra.lags import has_lags, with_companions
from seqdsl.forms.convolution import to_convolution
from seqdsl.forms.scan import to_scan
from seqdsl.forms.taps import to_matrix_convolution
from seqdsl.ir.dependence import Loop
from seqdsl.ir.system import System


def to_any_convolution(system: System, loop: Loop) -> System:
    """Entry by entry where the update is; else as matrices, with a state for each value that is read further back than
    one step. Whole numbers are added up. Raises `NoMatch` with every reason."""
    if any(system.tensors[n].dtype == "int" for n in loop.tensors()):
        return to_scan(system, loop)  # a transform would round what a sum counts
    if has_lags(system, loop):
        return to_matrix_convolution(*with_companions(system, loop))
    try:
        return to_convolution(system, loop)
    except NoMatch as reason:
        try:
            return to_matrix_convolution(system, loop)
        except NoMatch as other:
            raise neither(reason, other) from None
