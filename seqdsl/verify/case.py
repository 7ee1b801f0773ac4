"""One example of a test: a length, a seed and a kind of inputs, from which sizes and inputs follow.

A case is three small values, so that a failure can be named on a command line and drawn again exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from seqdsl.ir.sizes import SizeError, Sizes
from seqdsl.ir.system import System
from seqdsl.verify.inputs import draw_inputs, draw_sizes

Array = np.ndarray[Any, Any]
LENGTHS = (0, 1, 2, 3, 5, 8, 13, 17)


@dataclass(frozen=True)
class Case:
    """What Hypothesis draws."""

    stream: int
    seed: int
    harsh: bool

    def draw(self, system: System) -> tuple[Sizes, dict[str, Array]] | None:
        """Sizes and inputs; None where no sizes fit this length."""
        rng = np.random.default_rng(self.seed)
        try:
            sizes = draw_sizes(system, rng, stream=self.stream, tries=12)
            return sizes, draw_inputs(system, sizes, rng, harsh=self.harsh)
        except SizeError:
            return None

    def describe(self, sizes: Sizes) -> str:
        """Sizes, seed and decays, in words."""
        return f"{shown(sizes)}; seed {self.seed}, {'harsh' if self.harsh else 'ordinary'} decays"

    def name(self) -> str:
        """What `--case` takes: `5:123`, or `5:123:harsh`."""
        return f"{self.stream}:{self.seed}{':harsh' if self.harsh else ''}"


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
