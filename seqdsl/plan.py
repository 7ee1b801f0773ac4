"""What each form costs, and which one `auto` takes.

Costs are polynomials in the sizes, read off the system: one multiply-add counts as two flops, every tensor is written
once and read once, and a loop over an axis makes that many steps one after another. The choice compares forms at
nominal sizes by a roofline with a price for each sequential step; it decides between forms, and is no prediction.

Some forms it takes only where they are safe or sure to pay, whatever they cost: the `check` of a form's row.

Architecture invariant: knows no code text; backends report nothing back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from seqdsl.diagnostics import SeqError
from seqdsl.forms import DISTRIBUTED, FORMS, Derived, derive
from seqdsl.forms.derive import apply
from seqdsl.forms.levels import OVER_PAIRS, join_of
from seqdsl.forms.newton_rank import couplings
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, Step, schedule
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound, make, options
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.sizes import SizeError, evaluate_size
from seqdsl.ir.state import needed
from seqdsl.ir.system import System, Tensor

Poly = dict[tuple[str, ...], int]  # monomial (sorted axis names) -> coefficient

FLOPS_PER_SECOND = 5e10
BYTES_PER_SECOND = 1e10
SECONDS_PER_STEP = 3e-6  # the price of launching one operation
_NOMINAL_TIME, _NOMINAL, _NOMINAL_LEVELS = 2048, 64, 64
_CHEAP = frozenset(
    ("const", "index", "size", "option", "first", "read", "where", "and", "or", "not", "lt", "le", "eq", "ne", "front", "level")
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


def leading(poly: Mapping[tuple[str, ...], int]) -> str:
    """Its terms that no other term is a multiple of."""
    names = {m: [n for n in m if not n.isdigit()] for m in poly}
    top = {m: c for m, c in poly.items() if not any(a != m and _within(names[m], names[a]) for a in poly)}
    return show(top)


def _within(some: list[str], all_: list[str]) -> bool:
    return len(some) < len(all_) and all(some.count(n) <= all_.count(n) for n in some)


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
        _add(moved, axes, 8)
        term = _front(tensor) or tensor.rhs  # of a grid, the cells on it alone are evaluated
        if term is not None and tensor.name in coupled:  # matrices of small rank are not made
            term = make("newton", *term.args[: 2 + len(coupled[tensor.name])])
        if term is not None and term.op == "level" and join_of(term.args[0]):
            for node in walk(term.args[0].args[0]):  # at some pairs for each position, not at all of them
                if node.op not in _CHEAP or node.op == "read":
                    _add(flops, axes, 20)
        elif term is not None:
            each: Poly = {}  # the steps of what a form has made of recurrences, at every step of the loops around them
            for node in [n for n in walk(term) if n not in seen]:
                seen.add(node)  # equal terms are computed once
                _count(system, node, flops, moved, each)
            for names, count in each.items():
                _add(steps, (*around.get(tensor.name, ()), *names), count)
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
            terms = {n for rhs in marked if rhs is not None for n in walk(rhs.args[0]) if n.op not in _CHEAP}
            _add(steps, outer, 3 * 64 * len(terms))
            _add(steps, (*outer, step.axis), 1)  # the starts of the pieces are corrected one after another
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
        _add(steps, outer, 4)


def _count_levels(axis: str, parts: list[Node], outer: tuple[str, ...], steps: Poly) -> None:
    """A step is its terms, and what it reads at the pairs. How many levels there are only the inputs know: where edges
    are listed, a graph is taken to be wide; from a mask of all pairs, a chain."""
    terms = sum(n.op not in _CHEAP or n.op == "read" for n in {n for part in parts for n in walk(part)})
    joined = all(part.op not in OVER_PAIRS or join_of(part) for part in parts)
    _add(steps, outer if joined else (*outer, axis), (_NOMINAL_LEVELS if joined else 1) * terms)


def _count_fronts(system: System, fronts: list[Node], outer: tuple[str, ...], steps: Poly) -> None:
    """As many fronts as rows and columns; a step is its terms, and a piece of each tensor cut off and put together."""
    terms = {n for mark in fronts for n in walk(mark.args[0]) if n.op not in _CHEAP or n.op == "read"}
    given = options(fronts[0])
    _add(steps, (*outer, system.axis(given["along"])), given["slope"] * (len(terms) + len(fronts)))
    _add(steps, (*outer, system.axis(given["across"])), len(terms) + len(fronts))


def _count(system: System, node: Node, flops: Poly, moved: Poly, steps: Poly) -> None:
    binding = OPS[node.op].binding
    free = tuple(system.axis(i) for i in sorted(node.free))
    if node.op == "newton":
        _count_newton(system, node, flops, moved)
    elif node.op == "decayed_product":  # both states, scanned
        full = frozenset().union(*(a.free for a in node.args)) | {node.attr[0][0]}
        _add(flops, tuple(system.axis(i) for i in sorted(full)), 10)
        _add(moved, tuple(system.axis(i) for i in sorted(full)), 16)
        _add(steps, (system.axis(node.attr[0][0]),), 2)
    elif node.op == "matrix_scan":
        _count_matrices(system, node, flops, steps)
    elif node.op == "grid_scan":
        _count_grid(system, node, flops, moved, steps)
    elif node.op in ("decayed_solve", "micro_solve"):
        _count_solve(system, node, flops, steps)
    elif OPS[node.op].binding in ("scan", "last") and node.op.startswith("block_"):
        _count_block(system, node, flops, steps)
    elif node.op in ("decayed_read", "decayed_state", "affine_scan", "ring_scan"):
        _count_scan(system, node, flops, steps)
    elif binding in ("reduce", "along", "fold"):
        inside = {*node.args[0].free, *bound(node)}
        _add(flops, tuple(system.axis(i) for i in sorted(inside)), 1)
        if node.op == "normalised_read":  # exponentials of one block, and its product with the values
            _add(flops, tuple(system.axis(i) for i in sorted(inside | node.args[1].free)), 1)
        elif node.op in ("softmax", "logsumexp"):  # written and read as a whole, where `online` keeps one block
            _add(moved, tuple(system.axis(i) for i in sorted(inside)), 8)
    elif node.op == "matrix_taps":  # each tap is a product of two vectors of components
        _add(flops, (*free, *(system.axis(i) for i in bound(node)[: len(bound(node)) // 2])), 2)
    elif binding == "map":
        _add(flops, free, 16)
    elif node.op not in _CHEAP:
        _add(flops, free, 1 if node.op in ("add", "sub", "mul", "neg", "maximum", "minimum") else 10)


def _count_scan(system: System, node: Node, flops: Poly, steps: Poly) -> None:
    (time,) = node.attr[0]
    axis = system.axis(time)
    names = frozenset().union(*(a.free for a in node.args)) | {time}
    full = tuple(system.axis(i) for i in sorted(names))
    if node.op in ("affine_scan", "ring_scan"):
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


def _count_newton(system: System, node: Node, flops: Poly, moved: Poly) -> None:
    """Three sweeps over the step, of which the equation itself counts one; each writes the states."""
    axes = tuple(system.axis(i) for i in sorted(node.free))
    for part in walk(node.args[0]):
        if part.op not in _CHEAP:
            _add(flops, axes, 20)
    _add(moved, axes, 16)


def _count_matrices(system: System, node: Node, flops: Poly, steps: Poly) -> None:
    """A matrix times a vector at each step, twice, and the product of the matrices of each chunk; for one matrix at all
    times a power, and the chunks as columns side by side."""
    time, *kept = node.attr[0]
    read = node.attr[1]
    if time not in node.args[0].free:
        _add(flops, tuple(system.axis(i) for i in sorted({*node.free, *read})), 4)
        _add(steps, (), 128)
        return
    matrix = {*node.args[0].free, time, *kept, *read}
    both = tuple(system.axis(i) for i in sorted({*node.free, *read}))
    _add(flops, both, 4)
    _add(flops, (*(system.axis(i) for i in sorted(matrix)), *(system.axis(i) for i in sorted(read))), 2)
    _add(steps, (system.axis(time),), 1)


def _count_grid(system: System, node: Node, flops: Poly, moved: Poly, steps: Poly) -> None:
    """Maps over the edges of blocks, at each of about twelve levels 4 entries for a cell and set of coefficients, or one
    block where all are equal, whose joins cost the shorter side; of the values, the edges are multiplied on the way up and
    down. Measured: what is moved for the maps outweighs their products."""
    first, second, *kept = node.attr[0]
    axes = [system.axis(i) for i in (first, second)]
    short = axes[0] if axes[1] == system.stream else axes[1]
    coefficients = node.args[0].free | node.args[1].free
    square = [system.axis(i) for i in (*kept, *kept)]
    heads = [system.axis(i) for i in sorted(coefficients - {first, second, *kept, *node.attr[1]})]
    cells = axes if {first, second} & coefficients else [short, short]
    entries = [system.axis(i) for i in sorted(node.free)]
    _add(flops, (*cells, short, *heads, *square, *square[: len(kept)]), 8)
    _add(moved, (*cells, *heads, *square), 3500)
    _add(flops, (*entries, *square[: len(kept)]), 48)
    _add(moved, tuple(entries), 300)
    _add(steps, (), 700)


def _count_solve(system: System, node: Node, flops: Poly, steps: Poly) -> None:
    """A triangular system in each chunk: its matrix, its inverse on both sides, the chunk's map, and the products of
    states with it. Reads that differ along a column make it a system for each column."""
    time, *ranks = node.attr[0]
    rows = frozenset(node.attr[1])
    w, u, x, a, start = node.args
    given = options(node)["chunk"]
    pairs = str(given) if given else system.axis(time)
    heads = (w.free | u.free | a.free) - rows
    left = tuple(system.axis(i) for i in sorted(heads | rows | {time, *ranks}))
    right = tuple(system.axis(i) for i in sorted(node.free | {time}))
    square = tuple(system.axis(i) for i in sorted(rows))
    both = tuple(system.axis(i) for i in sorted(node.free | rows | {time}))
    _add(flops, (*left, pairs), 6)
    _add(flops, (*right, pairs), 2)
    _add(flops, (*left, *square), 2)
    _add(flops, both, 6)
    _add(steps, (), 400)
    if a.free & rows:
        _add(flops, left, 60)


def _count_block(system: System, node: Node, flops: Poly, steps: Poly) -> None:
    """As `_count_scan` and `_count_solve`, for each part; reads and writes meet the matrices at six levels of a chunk."""
    if node.op == "block_state":
        return  # shares the chunk states of the reads
    (time, *ranks), (part, read, *rows) = node.attr[0], node.attr[1]
    given = options(node)["chunk"]
    pairs = str(given) if given else system.axis(time)
    w, u, a = node.args[0], node.args[1], node.args[3]
    heads = {*w.free, *u.free, *a.free, time, *ranks, *rows, part} - {read}
    left = tuple(system.axis(i) for i in sorted(heads))
    right = tuple(system.axis(i) for i in sorted(node.free | {time}))
    both = tuple(system.axis(i) for i in sorted(node.free | {*rows, part, time}))
    _add(flops, (*left, pairs), 2)
    _add(flops, (*left, system.axis(read)), 24)
    _add(flops, (*right, pairs), 2)
    _add(flops, both, 4)
    _add(steps, (), 600)
    if node.op == "block_solve":
        square = tuple(system.axis(i) for i in sorted({*rows, part}))
        _add(flops, (*left, pairs), 4)
        _add(flops, (*left, *square), 2)


def candidates(system: System) -> list[Derived]:
    """Every form as far as it goes: recurrences that resist a form stay loops in it."""
    found = [derive(system, "recurrent")]
    for row in [row for row in FORMS.values() if row.rewrite is not None]:
        derived = apply(system, row, row.check is not None)  # without a check as `derive` asks, and it is known
        if derived.rewritten:
            found.append(derived)
    return found


@once_for_each
def choose(system: System) -> Derived:
    """The cheapest form at nominal sizes; ties go to the earlier row."""
    return min(candidates(system), key=lambda d: cost(d.system).seconds(_with_made(system, d.system)))


def _with_made(system: System, derived: System) -> System:
    """The system with the indices that a form has made, and that are of fixed length: ranks, parts."""
    made = {n: i for n, i in derived.indices.items() if i.size is not None and i.size.op == "const"}
    return replace(system, indices={**made, **system.indices})


def in_form(system: System, form: str) -> Derived:
    """The system in the form asked for; `auto` asks the planner, as `distributed` does for what each rank computes."""
    return choose(system) if form == "auto" else as_chosen(derive(system, form))


def as_chosen(derived: Derived) -> Derived:
    """A form as it is; of one rank's piece of the stream, with what that computes in the cheapest form for it."""
    if derived.form != DISTRIBUTED:
        return derived
    inner = choose(derived.system)
    return replace(inner, form=derived.form, obligations=(*derived.obligations, *inner.obligations), rewritten=derived.rewritten)


def costs(system: System) -> dict[str, Cost | SeqError]:
    """The cost of each form that the system has as a whole, or why it has not."""
    found: dict[str, Cost | SeqError] = {}
    for name in FORMS:
        try:
            found[name] = cost(derive(system, name).system)
        except SeqError as error:
            found[name] = error
    return found
