"""What a target that builds on this one replaces: functions of `support`, by functions of its own.

Architecture invariant: knows no target; the emitter asks this table and names no stand-in itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StandIn:
    """A function with the arguments and results of one of `support`.

    `narrow`: it takes each operand at the width at which it is given, so that an input that nothing else reads is not
    cast, and these keywords: `scale`, a number that multiplies its first operand; `dots`, the dtype of its products;
    `dtype`, that of its first result, given where an output is nothing but that result.
    `packed`: it takes `first`, [T] or None, which positions begin a sequence that knows nothing of those before, and
    `starts`, the ends of those sequences where each has a first and a last state of its own.
    """

    name: str
    narrow: bool = False
    packed: bool = False


@dataclass(frozen=True)
class Target:
    """Stand-ins by the name of the function, and the file, without suffix, that a module imports them from.

    `rows`, which is none of `support`, is an operand times a factor that it has lost some indices of.
    `online` writes functions of its own for normalised reads (`online.Writing`), `steps` for scans over rings and folds of
    monoids, with their arguments, and `chains` for groups of equations (its `write` is asked before every step of a
    schedule); their text goes into `written`. `step` is the target of the function that `step` runs where the system has
    one.
    """

    file: str = ""
    calls: Mapping[str, StandIn] = field(default_factory=dict)
    online: Any = None
    steps: Any = None
    written: dict[str, str] = field(default_factory=dict)  # by the name of the function
    chains: Any = None
    step: Target | None = None

    def call(self, function: str) -> StandIn:
        """What a module calls for a function of `support`."""
        return self.calls.get(function, StandIn(function))

    def names(self) -> set[str]:
        """Names that no variable may have."""
        return {s.name for s in self.calls.values()} | set(self.written)

    def text(self) -> str:
        """What a module takes along of the target's own."""
        return self.online.text(self.written) if self.written else ""

    def imports(self, used: set[str]) -> str:
        """The import of the stand-ins among these names: from beside the module, in a package or not."""
        found = ", ".join(sorted(s.name for s in self.calls.values() if s.name in used))
        lines = f"try:\n    from .{self.file} import {found}\nexcept ImportError:\n    from {self.file} import {found}"
        own = self.online.imports() if self.written else ""
        return "\n\n".join(p for p in (own, lines if found else "") if p)


TORCH = Target()
