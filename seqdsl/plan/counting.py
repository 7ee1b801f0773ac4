"""The cost of a system as it stands, in whatever form: flops, bytes moved, steps one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from seqdsl.forms.convolution import convolved
from seqdsl.forms.levels import OVER_PAIRS, join_of
from seqdsl.forms.newton_rank import couplings
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, Step, schedule
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import make, options
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.sizes import SizeError, evaluate_size
from seqdsl.ir.state import needed
from seqdsl.ir.system import System, Tensor
from seqdsl.plan.operators import CHEAP, Count
from seqdsl.plan.polynomials import Poly, add, show

FLOPS_PER_SECOND = 5e10
BYTES_PER_SECOND = 1e10
SECONDS_PER_STEP = 3e-6  # the price of launching one operation
_NOMINAL_TIME, _NOMINAL, _NOMINAL_LEVELS = 2048, 64, 64


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


def _at_nominal(poly: Mapping[tuple[str, ...], int], system: System) -> float:
    return float(sum(c * prod(_nominal(system, n) for n in m) for m, c in poly.items()))


def _nominal(system: System, axis: str) -> int:
    if axis.isdigit():
        return int(axis)
    if axis == system.stream:
        return _NOMINAL_TIME
    size = system.indices[axis].size if axis in system.indices else None
    lengths = {} if size is None else {str(n.attr): _nominal(system, str(n.attr)) for n in walk(size) if n.op == "size"}
    if size is None or not lengths and size.op != "const":
        return _NOMINAL
    defaults = {n: None if node is None else build.value_of(node) for n, node in system.options.items()}
    chosen = {n: value if isinstance(value, int) else _NOMINAL for n, value in defaults.items()}
    try:
        return evaluate_size(size, chosen, lengths)
    except SizeError:  # an option that does not divide it
        return _NOMINAL


@once_for_each
def cost(system: System) -> Cost:
    """The cost of a system as it stands, in whatever form; of what its outputs need, not of what only its claims speak
    of, nor of what is computed for the state where that is asked for."""
    system = needed(replace(system, finals={}))
    flops: Poly = {}
    moved: Poly = {}
    steps: Poly = {}
    seen: set[Node] = set()
    around: dict[str, tuple[str, ...]] = {}
    for step in schedule(system):
        _count_steps(system, step, (), steps, around)
    system, coupled = _over_grids(system), couplings(system)
    for tensor in system.derived():
        axes = tuple(system.axis(i) for i in tensor.indices)
        add(moved, axes, 8)
        term = _front(tensor) or tensor.rhs  # of a grid, the cells on it alone are evaluated
        if term is not None and tensor.name in coupled:  # matrices of small rank are not made
            term = make("newton", *term.args[: 2 + len(coupled[tensor.name])])
        if term is not None and term.op == "level" and join_of(term.args[0]):
            for node in walk(term.args[0].args[0]):  # at some pairs for each position, not at all of them
                if node.op not in CHEAP or node.op == "read":
                    add(flops, axes, 20)
        elif term is not None:
            each: Poly = {}  # the steps of what a form has made of recurrences, at every step of the loops around them
            for node, (_, signal) in [(n, found) for n in walk(term) if (found := convolved(system, n))]:
                seen |= {node.args[0], *signal.args}  # by transforms, and not at every pair of positions
            for node in [n for n in walk(term) if n not in seen]:
                seen.add(node)  # equal terms are computed once
                Count(system, flops, moved, each).term(node)
            for names, count in each.items():
                add(steps, (*around.get(tensor.name, ()), *names), count)
    return Cost(flops, moved, steps)


def _front(tensor: Tensor) -> Node | None:
    """The mark of an equation over the fronts of a grid."""
    rhs = tensor.rhs
    return rhs.args[1] if rhs is not None and rhs.op == "where" and rhs.args[1].op == "front" else None


def _over_grids(system: System) -> System:
    """The system with its fronts' cells counted as those of their grids."""
    indices = dict(system.indices)
    for tensor in system.derived():
        mark = _front(tensor)
        if mark is not None:
            for name, own in zip(tensor.indices, ("across", "along"), strict=False):
                indices[name] = replace(indices[name], axis=system.axis(options(mark)[own]))
    return replace(system, indices=indices)


def _count_steps(
    system: System, step: Step, outer: tuple[str, ...], steps: Poly, around: dict[str, tuple[str, ...]]
) -> None:
    """The steps of loops, and around which tensors they lie."""
    if isinstance(step, Loop):
        marked = [system.tensors[n].rhs for n in step.tensors()]
        innermost = all(isinstance(inner, Compute) for inner in step.body)
        if innermost and all(rhs is not None and rhs.op == "newton" for rhs in marked):  # three sweeps of 64 steps over all pieces
            terms = {n for rhs in marked if rhs is not None for n in walk(rhs.args[0]) if n.op not in CHEAP}
            add(steps, outer, 3 * 64 * len(terms))
            add(steps, (*outer, step.axis), 1)  # the starts of the pieces are corrected one after another
            return
        if all(rhs is not None and rhs.op == "level" for rhs in marked):
            _count_levels(step.axis, [rhs.args[0] for rhs in marked if rhs is not None], outer, steps)
            return
        fronts = [mark for n in step.tensors() if (mark := _front(system.tensors[n])) is not None]
        if fronts:
            _count_fronts(system, fronts, outer, steps)
            return
        for inner in step.body:
            _count_steps(system, inner, (*outer, step.axis), steps, around)
    else:
        around[step.tensor] = outer
        add(steps, outer, 4)


def _count_levels(axis: str, parts: list[Node], outer: tuple[str, ...], steps: Poly) -> None:
    """A step is its terms, and what it reads at the pairs. How many levels there are only the inputs know: where edges
    are listed, a graph is taken to be wide; from a mask of all pairs, a chain."""
    terms = sum(n.op not in CHEAP or n.op == "read" for n in {n for part in parts for n in walk(part)})
    joined = all(part.op not in OVER_PAIRS or join_of(part) for part in parts)
    add(steps, outer if joined else (*outer, axis), (_NOMINAL_LEVELS if joined else 1) * terms)


def _count_fronts(system: System, fronts: list[Node], outer: tuple[str, ...], steps: Poly) -> None:
    """As many fronts as rows and columns; a step is its terms, and a piece of each tensor cut off and put together."""
    terms = {n for mark in fronts for n in walk(mark.args[0]) if n.op not in CHEAP or n.op == "read"}
    given = options(fronts[0])
    add(steps, (*outer, system.axis(given["along"])), given["slope"] * (len(terms) + len(fronts)))
    add(steps, (*outer, system.axis(given["across"])), len(terms) + len(fronts))
