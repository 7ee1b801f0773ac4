"""One example of a test: a length, a seed and a kind of inputs, from which sizes and inputs follow.

A case is three small values, so that a failure can be named on a command line and drawn again exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from seqdsl.ir.remember import once_for_each
from seqdsl.ir.sizes import SizeError, Sizes
from seqdsl.ir.system import System
from seqdsl.verify.inputs import draw_inputs, draw_sizes

Array = np.ndarray[Any, Any]
LENGTHS = (0, 1, 2, 3, 5, 8, 13, 17)
Drawn = tuple[Sizes, dict[str, Array]]
Owner = TypeVar("Owner")
Result = TypeVar("Result")
_KEPT = 32  # cases of one system: those of a run of `seqc test`


@dataclass(frozen=True)
class Case:
    """What Hypothesis draws."""

    stream: int
    seed: int
    harsh: bool

    def draw(self, system: System) -> Drawn | None:
        """Sizes and inputs; None where no sizes fit this length."""
        return _drawn(system, self)

    def describe(self, sizes: Sizes) -> str:
        """Sizes, seed and decays, in words."""
        return f"{shown(sizes)}; seed {self.seed}, {'harsh' if self.harsh else 'ordinary'} decays"

    def name(self) -> str:
        """What `--case` takes: `5:123`, or `5:123:harsh`."""
        return f"{self.stream}:{self.seed}{':harsh' if self.harsh else ''}"


def once_for_each_case(function: Callable[[Owner, Case], Result]) -> Callable[[Owner, Case], Result]:
    """The function, remembering what it gave for the last cases of every system that is alive: each property of each
    form of a mixer is tried on the same cases, and all are compared with the same equations."""

    @once_for_each
    def known(owner: Owner) -> dict[Case, Result]:
        return {}

    @wraps(function)
    def remembered(owner: Owner, case: Case) -> Result:
        results = known(owner)
        if case not in results:
            found = function(owner, case)
            if len(results) == _KEPT:
                del results[next(iter(results))]
            results[case] = found
        return results[case]

    return remembered


@once_for_each_case
def _drawn(system: System, case: Case) -> Drawn | None:
    rng = np.random.default_rng(case.seed)
    try:
        sizes = draw_sizes(system, rng, stream=case.stream, tries=12)
        return sizes, draw_inputs(system, sizes, rng, harsh=case.harsh)
    except SizeError:
        return None


def case_named(text: str) -> Case | None:
    """The case that `Case.name` gave; None for any other text."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(p.isascii() and p.isdigit() and len(p) < 8 for p in parts[:2]):
        return None
    if len(parts) == 3 and parts[2] != "harsh":
        return None
    return Case(int(parts[0]), int(parts[1]), len(parts) == 3)


def shown(sizes: Sizes) -> str:
    """The lengths of the axes that a user named."""
    return ", ".join(f"|{n}| = {v}" for n, v in sizes.lengths.items() if "." not in n)
