"""The fronts of a recurrence: of a grid, where it takes two loops, and else the levels of a graph that its guards give."""

from __future__ import annotations

from seqdsl.forms.levels import to_levels
from seqdsl.forms.wavefront import to_wavefront
from seqdsl.ir.dependence import Loop
from seqdsl.ir.system import System


def to_any_wavefront(system: System, loop: Loop) -> System:
    """Positions that do not read each other at once. Raises `NoMatch` with the reason."""
    nested = any(isinstance(step, Loop) for step in loop.body)
    return to_wavefront(system, loop) if nested else to_levels(system, loop)
