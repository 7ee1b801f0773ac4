"""Windows of a sequence: sums of its last positions times taps, `sum[j] w[j,c] * x[t-j,c]`, at any step between them.

A kernel adds a window up where it needs it. Its taps are parameters, one for each lag and for some of the other indices.
Entry points: `window`, `Window`, `exchanged_windows`.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.ir import build
from seqdsl.ir.node import Node, exchanged, walk
from seqdsl.ir.ops import bound
from seqdsl.ir.order import difference
from seqdsl.ir.state import reads_length
from seqdsl.ir.system import System


@dataclass(frozen=True)
class Window:
    """A sum over `lag`: of `taps` times `read`, which is of the position `time - step lag - skip`."""

    node: Node
    read: Node
    taps: Node
    lag: str
    time: str
    step: int
    skip: int

    @property
    def indices(self) -> tuple[str, ...]:
        """In the order of what it is made of."""
        return tuple(self.time if self.lag in a.free else str(a.attr) for a in self.read.args)

    @property
    def leaf(self) -> Node:
        """What stands for its value in expressions."""
        return build.read(f"{self.read.attr}.{self.taps.attr}.window", map(build.index, self.indices), "real")


def window(system: System, node: Node) -> Window | None:
    """The window that a sum is; None for any other."""
    if node.op != "sum" or len(bound(node)) != 1 or node.args[1] is not build.TRUE or node.args[0].op != "mul":
        return None
    (lag,), (a, b) = bound(node), node.args[0].args
    size = system.index(lag).size
    if system.axis(lag) == system.stream or size is not None and reads_length(system, size, system.stream):
        return None
    for read, taps in ((a, b), (b, a)):
        found = _shift(system, read, lag)
        if found is not None and _are_taps(system, taps, lag, read.free) and node.free == read.free - {lag}:
            return Window(node, read, taps, lag, *found)
    return None


def exchanged_windows(system: System, node: Node) -> tuple[Node, list[Window]]:
    """An expression with leaves in the place of windows, and those."""
    found = [w for n in walk(node) if (w := window(system, n)) is not None]
    return exchanged(node, {w.node: w.leaf for w in found}), found


def _shift(system: System, read: Node, lag: str) -> tuple[str, int, int] | None:
    """(time, step, skip) of a read along its own indices but for one, the stream's, which goes back with the lag."""
    tensor = system.tensors.get(str(read.attr)) if read.op == "read" else None
    if tensor is None or tensor.edges or tensor.dtype != "real" or tensor.kind not in ("input", "derived"):
        return None
    found: tuple[str, int, int] | None = None
    for own, at in zip(tensor.indices, read.args, strict=True):
        if at.op == "index" and at.attr == own and system.axis(own) != system.stream:
            continue
        gap = difference(at, build.index(own))
        step, skip = -gap.get(build.index(lag), build.Fraction(0)), -gap.get(None, build.Fraction(0))
        plain = {*gap} <= {None, build.index(lag)} and step.denominator == skip.denominator == 1 and step >= 1 and skip >= 0
        if found is not None or not plain or system.axis(own) != system.stream:
            return None
        found = own, int(step), int(skip)
    return found


def _are_taps(system: System, node: Node, lag: str, free: frozenset[str]) -> bool:
    """Is it a parameter with one tap for each lag?"""
    if node.op != "read" or system.tensors[str(node.attr)].kind not in ("param", "const") or node.dtype != "real":
        return False
    names = [a.attr for a in node.args if a.op == "index"]
    time = {i for i in node.free if system.axis(i) == system.stream}
    return len({*names}) == len(node.args) and lag in node.free and node.free <= free and not time
