"""Verdicts: what the compiler knows of a law, and how far that knowledge reaches. Never a bool.

`how` is honest about its reach: a theorem of a class, a symbolic identity (for all sizes, or for the sizes it says), a
random exact evaluation, or evaluation to 50 digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union


@dataclass(frozen=True)
class Proved:
    """The law holds; `how` names the theorem or the identity that shows it."""

    law: str
    how: str

    @property
    def holds(self) -> bool:
        """True: nothing speaks against the law."""
        return True

    def describe(self) -> str:
        """One line for a report."""
        return f"proved: {self.law} ({self.how})"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"verdict": "proved", "law": self.law, "how": self.how}


@dataclass(frozen=True)
class Tested:
    """No counterexample among `count` trials; `worst` is the largest relative error seen, 0 for exact arithmetic."""

    count: int
    worst: float
    how: str

    @property
    def holds(self) -> bool:
        """True: nothing speaks against the law."""
        return True

    def describe(self) -> str:
        """One line for a report."""
        error = "exact" if self.worst == 0 else f"worst error {self.worst:.1e}"
        return f"tested: {self.count} trials, {error} ({self.how})"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"verdict": "tested", "count": self.count, "worst": self.worst, "how": self.how}


@dataclass(frozen=True)
class Refuted:
    """A concrete counterexample: a sentence, and the values by name in the smallest numbers found."""

    counterexample: str
    data: tuple[tuple[str, str], ...] = ()

    @property
    def holds(self) -> bool:
        """False: there is a counterexample."""
        return False

    def describe(self) -> str:
        """One line for a report."""
        return f"refuted: {self.counterexample}"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"verdict": "refuted", "counterexample": self.counterexample, "data": dict(self.data)}


@dataclass(frozen=True)
class Unknown:
    """Neither proved nor refuted, and why."""

    why: str

    @property
    def holds(self) -> None:
        """None: it is not known."""
        return None

    def describe(self) -> str:
        """One line for a report."""
        return f"unknown: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"verdict": "unknown", "why": self.why}


Verdict = Union[Proved, Tested, Refuted, Unknown]
