"""What each form costs, and which one `auto` takes.

Costs are polynomials in the sizes, read off the system: one multiply-add counts as two flops, every tensor is written
once and read once, and a loop over an axis makes that many steps one after another. The choice compares forms at
nominal sizes by a roofline with a price for each sequential step; it decides between forms, and is no prediction.

Architecture invariant: knows no code text; backends report nothing back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from seqdsl.diagnostics import SeqError
from seqdsl.forms import FORMS, Derived, derive
from seqdsl.forms.derive import apply
from seqdsl.ir.dependence import Loop, schedule
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound
from seqdsl.ir.state import needed
from seqdsl.ir.system import System

Poly = dict[tuple[str, ...], int]  # monomial (sorted axis names) -> coefficient

FLOPS_PER_SECOND = 5e10
BYTES_PER_SECOND = 1e10
SECONDS_PER_STEP = 3e-6  # the price of launching one operation
_NOMINAL_TIME, _NOMINAL = 2048, 64
_CHEAP = frozenset(
    ("const", "index", "size", "option", "first", "read", "where", "and", "or", "not", "lt", "le", "eq", "ne")
)


@dataclass(frozen=True)
class Cost:
    """Flops, bytes moved (at four bytes an entry) and sequential steps, as polynomials in the axes' lengths."""

    flops: Mapping[tuple[str, ...], int]
    bytes: Mapping[tuple[str, ...], int]
    steps: Mapping[tuple[str, ...], int]

    def seconds(self, system: System) -> float:
        """A rough time at nominal sizes: the larger of arithmetic and traffic, and a price for each step."""
        flops, moved, steps = (_at_nominal(p, system) for p in (self.flops, self.bytes, self.steps))
        return max(flops / FLOPS_PER_SECOND, moved / BYTES_PER_SECOND) + steps * SECONDS_PER_STEP

    def to_dict(self) -> dict[str, str]:
        """Readable polynomials."""
        return {"flops": show(self.flops), "bytes": show(self.bytes), "steps": show(self.steps)}


def show(poly: Mapping[tuple[str, ...], int]) -> str:
    """`2 |t| |h| |d| |e| + 3 |t| |h|`, largest terms first."""
    terms = sorted(poly.items(), key=lambda item: (-len(item[0]), item[0]))
    return (
        " + ".join(" ".join([str(c) if c != 1 or not m else "", *(f"|{n}|" for n in m)]).strip() for m, c in terms)
        or "0"
    )


def _add(total: Poly, names: tuple[str, ...], count: int) -> None:
    key = tuple(sorted(names))
    total[key] = total.get(key, 0) + count


def _at_nominal(poly: Mapping[tuple[str, ...], int], system: System) -> float:
    return float(sum(c * prod(_nominal(system, n) for n in m) for m, c in poly.items()))


def _nominal(system: System, axis: str) -> int:
    if axis.isdigit():
        return int(axis)
    if axis == system.stream:
        return _NOMINAL_TIME
    size = system.indices[axis].size if axis in system.indices else None
    if size is not None and size.op == "const":
        return int(size.attr)
    if size is not None and size.op == "size" and str(size.attr) == system.stream:
        return _NOMINAL_TIME
    return _NOMINAL


def cost(system: System) -> Cost:
    """The cost of a system as it stands, in whatever form; of what it needs, not of what only its claims speak of."""
    system = needed(system)
    flops: Poly = {}
    moved: Poly = {}
    steps: Poly = {}
    seen: set[Node] = set()
    for tensor in system.derived():
        axes = tuple(system.axis(i) for i in tensor.indices)
        _add(moved, axes, 8)
        if tensor.rhs is not None:
            for node in [n for n in walk(tensor.rhs) if n not in seen]:
                seen.add(node)  # equal terms are computed once
                _count(system, node, flops, moved, steps)
    for step in schedule(system):
        _count_steps(system, step, (), steps)
    return Cost(flops, moved, steps)


def _count_steps(system: System, step: object, outer: tuple[str, ...], steps: Poly) -> None:
    if isinstance(step, Loop):
        for inner in step.body:
            _count_steps(system, inner, (*outer, step.axis), steps)
    else:
        _add(steps, outer, 4)


def _count(system: System, node: Node, flops: Poly, moved: Poly, steps: Poly) -> None:
    binding = OPS[node.op].binding
    free = tuple(system.axis(i) for i in sorted(node.free))
    if node.op in ("decayed_read", "decayed_state", "affine_scan"):
        _count_scan(system, node, flops, steps)
    elif binding in ("reduce", "along", "fold"):
        inside = {*node.args[0].free, *bound(node)}
        _add(flops, tuple(system.axis(i) for i in sorted(inside)), 1)
        if node.op == "normalised_read":  # exponentials of one block, and its product with the values
            _add(flops, tuple(system.axis(i) for i in sorted(inside | node.args[1].free)), 1)
        elif node.op in ("softmax", "logsumexp"):  # written and read as a whole, where `online` keeps one block
            _add(moved, tuple(system.axis(i) for i in sorted(inside)), 8)
    elif binding == "map":
        _add(flops, free, 16)
    elif node.op not in _CHEAP:
        _add(flops, free, 1 if node.op in ("add", "sub", "mul", "neg", "maximum", "minimum") else 10)


def _count_scan(system: System, node: Node, flops: Poly, steps: Poly) -> None:
    (time,) = node.attr[0]
    axis = system.axis(time)
    names = frozenset().union(*(a.free for a in node.args)) | {time}
    full = tuple(system.axis(i) for i in sorted(names))
    if node.op == "affine_scan":
        _add(flops, full, 4)
        _add(steps, (axis,), 1)  # two short passes over chunks of 32: a launch for about one step in sixteen
        return
    if node.op == "decayed_state":
        return  # shares the chunk states of the reads
    q, k, v = node.args[:3]
    chunk = dict(node.attr[2]).get("chunk", 64)
    pairs = str(chunk) if chunk else axis
    left = tuple(system.axis(i) for i in sorted(q.free | k.free | {time}))
    right = tuple(system.axis(i) for i in sorted(node.free | {time}))
    rows, columns = set(bound(node)[1:]), node.free - q.free - k.free - {time}
    if node.args[3].free & rows and node.args[3].free & columns:  # stepped through, without keeping the state
        _add(flops, full, 20)
        _add(steps, (axis,), 1)
        return
    _add(flops, (*left, pairs), 2)
    _add(flops, (*right, pairs), 2)
    if chunk:
        _add(flops, full, 4)
        _add(steps, (), 300)
        if node.args[3].free & set(bound(node)[1:]):  # a decay along the rows costs more inside a chunk
            _add(flops, left, 60)
    else:
        _add(steps, (), 20)


def candidates(system: System) -> list[Derived]:
    """Every form as far as it goes: recurrences that resist a form stay loops in it."""
    found = [derive(system, "recurrent")]
    for row in FORMS.values():
        if row.rewrite is None:
            continue
        derived = apply(system, row)
        if derived.rewritten:
            found.append(derived)
    return found


def choose(system: System) -> Derived:
    """The cheapest form at nominal sizes; ties go to the earlier row."""
    return min(candidates(system), key=lambda d: cost(d.system).seconds(system))


def in_form(system: System, form: str) -> Derived:
    """The system in the form asked for; `auto` asks the planner."""
    if form == "auto":
        return choose(system)
    return derive(system, form)


def costs(system: System) -> dict[str, Cost | SeqError]:
    """The cost of each form that the system has as a whole, or why it has not."""
    found: dict[str, Cost | SeqError] = {}
    for name in FORMS:
        try:
            found[name] = cost(derive(system, name).system)
        except SeqError as error:
            found[name] = error
    return found
