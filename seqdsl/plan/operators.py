"""What one term costs: by its binding, or by a row of the table for what forms make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from seqdsl.forms.convolution import convolved
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound, options
from seqdsl.ir.system import System
from seqdsl.plan.polynomials import Poly, add

CHEAP = frozenset(
    ("const", "index", "size", "option", "first", "read", "where", "and", "or", "not", "lt", "le", "eq", "ne", "front", "level")
)
_PLAIN = frozenset(("add", "sub", "mul", "neg", "maximum", "minimum"))


@dataclass(frozen=True)
class Count:
    """What terms cost, as it is added up; `steps` are those of one tensor, at each step of the loops around it."""

    system: System
    flops: Poly
    moved: Poly
    steps: Poly

    def axes(self, names: Iterable[str]) -> tuple[str, ...]:
        """The axes of indices, each as often as it is among them."""
        return tuple(self.system.axis(i) for i in sorted(names))

    def pairs(self, node: Node, time: str) -> str:
        """How many earlier positions a position meets in its chunk: 64, or all of them."""
        given = options(node)["chunk"]
        return str(given) if given else self.system.axis(time)

    def term(self, node: Node) -> None:
        """One term, its operands aside."""
        if node.op in _COUNTS:
            _COUNTS[node.op](self, node)
        elif OPS[node.op].binding in ("reduce", "along", "fold"):
            _count_reduction(self, node)
        elif OPS[node.op].binding == "map":
            add(self.flops, self.axes(node.free), 16)
        elif node.op not in CHEAP:
            add(self.flops, self.axes(node.free), 1 if node.op in _PLAIN else 10)


def _count_reduction(count: Count, node: Node) -> None:
    if (found := convolved(count.system, node)) is not None:
        _count_convolution(count, node, *found)
        return
    inside = {*node.args[0].free, *bound(node)}
    add(count.flops, count.axes(inside), 1)
    if node.op == "normalised_read":  # exponentials of one block, and its product with the values
        add(count.flops, count.axes(inside | node.args[1].free), 1)
    elif node.op in ("softmax", "logsumexp"):  # written and read as a whole, where `online` keeps one block
        add(count.moved, count.axes(inside), 8)


def _count_convolution(count: Count, node: Node, kernel: list[Node], signal: Node) -> None:
    """Fourier transforms of the kernel, the signal and the result, at twice the length of some thousand positions."""
    for free in (frozenset().union(*(f.free for f in kernel)), signal.free - {*bound(node)}, node.free):
        add(count.flops, count.axes(free), 72)
    add(count.steps, (), 20)


def _count_taps(count: Count, node: Node) -> None:
    """Each tap is a product of two vectors of components; before, about eight squares of the matrix."""
    components = [count.system.axis(i) for i in bound(node)[: len(bound(node)) // 2]]
    add(count.flops, (*count.axes(node.free), *components), 2)
    add(count.flops, (*count.axes(node.args[1].free), *components), 16)


def _count_product(count: Count, node: Node) -> None:
    """Both states, scanned."""
    time = node.attr[0][0]
    full = count.axes(frozenset().union(*(a.free for a in node.args)) | {time})
    add(count.flops, full, 10)
    add(count.moved, full, 16)
    add(count.steps, count.axes([time]), 2)


def _count_scan(count: Count, node: Node) -> None:
    (time,) = node.attr[0]
    add(count.flops, count.axes(frozenset().union(*(a.free for a in node.args)) | {time}), 4)
    add(count.steps, count.axes([time]), 1)  # two short passes over chunks of 32: a launch for about one step in sixteen


def _count_read(count: Count, node: Node) -> None:
    """Pairs of positions in each chunk, and the chunks' states."""
    (time,), rows = node.attr[0], set(bound(node)[1:])
    q, k, _, decay, _ = node.args
    full = count.axes(frozenset().union(*(a.free for a in node.args)) | {time})
    columns = node.free - q.free - k.free - {time}
    if decay.free & rows and decay.free & columns:  # stepped through, without keeping the state
        add(count.flops, full, 20)
        add(count.steps, count.axes([time]), 1)
        return
    left, pairs = count.axes(q.free | k.free | {time}), count.pairs(node, time)
    add(count.flops, (*left, pairs), 2)
    add(count.flops, (*count.axes(node.free | {time}), pairs), 2)
    if not options(node)["chunk"]:
        add(count.steps, (), 20)
        return
    add(count.flops, full, 4)
    add(count.steps, (), 300)
    if decay.free & rows:  # a decay along the rows costs more inside a chunk
        add(count.flops, left, 60)


def _count_newton(count: Count, node: Node) -> None:
    """Three sweeps over the step, of which the equation itself counts one; each writes the states."""
    axes = count.axes(node.free)
    for part in walk(node.args[0]):
        if part.op not in CHEAP:
            add(count.flops, axes, 20)
    add(count.moved, axes, 16)


def _count_matrices(count: Count, node: Node) -> None:
    """A matrix times a vector at each step, twice, and the product of the matrices of each chunk; for one matrix at all
    times a power, and the chunks as columns side by side."""
    (time, *kept), read, matrix = node.attr[0], node.attr[1], node.args[0]
    add(count.flops, count.axes({*node.free, *read}), 4)
    if time not in matrix.free:
        add(count.steps, (), 128)
        return
    add(count.flops, (*count.axes({*matrix.free, time, *kept, *read}), *count.axes(read)), 2)
    add(count.steps, count.axes([time]), 1)


def _count_grid(count: Count, node: Node) -> None:
    """Maps over the edges of blocks, at each of about twelve levels 4 entries for a cell and set of coefficients, or one
    block where all are equal, whose joins cost the shorter side; of the values, the edges are multiplied on the way up and
    down. Measured: what is moved for the maps outweighs their products."""
    first, second, *kept = node.attr[0]
    axes = [count.system.axis(i) for i in (first, second)]
    short = axes[0] if axes[1] == count.system.stream else axes[1]
    coefficients = node.args[0].free | node.args[1].free
    square = [count.system.axis(i) for i in (*kept, *kept)]
    heads = count.axes(coefficients - {first, second, *kept, *node.attr[1]})
    cells = axes if {first, second} & coefficients else [short, short]
    entries = count.axes(node.free)
    add(count.flops, (*cells, short, *heads, *square, *square[: len(kept)]), 8)
    add(count.moved, (*cells, *heads, *square), 3500)
    add(count.flops, (*entries, *square[: len(kept)]), 48)
    add(count.moved, entries, 300)
    add(count.steps, (), 700)


def _count_solve(count: Count, node: Node) -> None:
    """A triangular system in each chunk: its matrix, its inverse on both sides, the chunk's map, and the products of
    states with it. Reads that differ along a column make it a system for each column."""
    (time, *ranks), rows = node.attr[0], frozenset(node.attr[1])
    w, u, _, decay, _ = node.args
    heads, pairs = (w.free | u.free | decay.free) - rows, count.pairs(node, time)
    left = count.axes(heads | rows | {time, *ranks})
    add(count.flops, (*left, pairs), 6)
    add(count.flops, (*count.axes(node.free | {time}), pairs), 2)
    add(count.flops, (*left, *count.axes(rows)), 2)
    add(count.flops, count.axes(node.free | rows | {time}), 6)
    add(count.steps, (), 400)
    if decay.free & rows:
        add(count.flops, left, 60)


def _count_block(count: Count, node: Node) -> None:
    """As `_count_read` and `_count_solve`, for each part; reads and writes meet the matrices at six levels of a chunk."""
    (time, *ranks), (part, read, *rows) = node.attr[0], node.attr[1]
    w, u, _, decay, _ = node.args
    heads = {*w.free, *u.free, *decay.free, time, *ranks, *rows, part} - {read}
    left, pairs = count.axes(heads), count.pairs(node, time)
    add(count.flops, (*left, pairs), 2)
    add(count.flops, (*left, count.system.axis(read)), 24)
    add(count.flops, (*count.axes(node.free | {time}), pairs), 2)
    add(count.flops, count.axes(node.free | {*rows, part, time}), 4)
    add(count.steps, (), 600)
    if node.op == "block_solve":
        add(count.flops, (*left, pairs), 4)
        add(count.flops, (*left, *count.axes({*rows, part})), 2)


def _count_nothing(count: Count, node: Node) -> None:
    """The state after the last position shares the chunks' states with the reads."""


# What costs otherwise than its binding says, most of it made by forms.
_COUNTS: dict[str, Callable[[Count, Node], None]] = {
    **dict.fromkeys(("affine_scan", "ring_scan"), _count_scan),
    **dict.fromkeys(("decayed_solve", "micro_solve"), _count_solve),
    **dict.fromkeys(("block_solve", "block_read"), _count_block),
    **dict.fromkeys(("decayed_state", "block_state"), _count_nothing),
    "decayed_read": _count_read,
    "decayed_product": _count_product,
    "matrix_scan": _count_matrices,
    "matrix_taps": _count_taps,
    "grid_scan": _count_grid,
    "newton": _count_newton,
}
