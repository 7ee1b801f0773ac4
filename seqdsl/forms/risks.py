"""What `auto` takes no form for, whatever it costs.

Cost alone would take the convolution for every time-invariant recurrence, and that is wrong twice. The error of an FFT
is relative to the largest entry of the whole sequence, later ones included, where a scan's is relative to what a
position itself has seen; and a kernel that grows overflows at its far end, which an FFT spreads over all positions. So
`auto` takes it only where it pays, a state that disappears into its kernel (a sum over it is all that is read), and
where |decay| <= 1 is shown, by the text or by what a claim of stability assumes, and the kernel is not constant. Of a
matrix that is not shown; there the claim itself, which `seqc check` tries, has to say that the state is stable. A
running sum, an EMA whose states are the output, or a raw parameter as the decay is scanned: exact, and as parallel.

A nonlinear cell whose entries mix is solved in a few sweeps over all positions, where steps take one. That pays as long
as a step costs its launches; how wide a cell and a batch are, at which it costs its arithmetic, only a call knows. So
`auto` solves it where it is known to be narrow, or to mix through a few sums alone, which costs little more than entries
by themselves do. Entry point: `RISKS`.
"""

from __future__ import annotations

from collections.abc import Callable

from seqdsl.algebra.affine import NotAffine, diagonal
from seqdsl.algebra.interval import Bounds
from seqdsl.forms.any_convolution import to_any_convolution
from seqdsl.forms.newton import to_newton
from seqdsl.forms.newton_rank import low_rank
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound
from seqdsl.ir.system import System

NARROW = 64  # entries of all states together that mix


def unsafe_convolution(system: System, loop: Loop) -> str:
    """Why a convolution would be no gain, or a numerical risk; empty where neither."""
    try:
        left = to_any_convolution(system, loop).tensors
    except NotAffine as reason:
        return str(reason)
    for name in loop.tensors():
        if name in left:
            return f"every entry of `{name}` is wanted, and a scan gives them as well, without the error of an FFT"
    try:
        states = diagonal(system, loop)
    except NotAffine:
        names = [n for n in loop.tensors() if n not in left]
        claimed = {c.args[0] for c in system.claims if c.kind == "stable"}
        open_ones = [n for n in names if n not in claimed]
        return f"`{open_ones[0]}` is not claimed to be stable, and taps that grow have no FFT" if open_ones else ""
    for state in states:
        name = state.update.state.name
        if state.decay in (build.ONE, build.const(-1)):
            return f"the kernel of `{name}` does not decay"
        if not _at_most_one(system, name, state.decay):
            return f"|{state.decay!r}| <= 1 is not shown, and a kernel that grows has no FFT"
    return ""


def wide_newton(system: System, loop: Loop) -> str:
    """Why solving may cost more than steps do: states that mix, and are not known to be narrow; empty where they are."""
    try:
        solved = to_newton(system, loop)
    except NotAffine as reason:
        return str(reason)
    after = solved.tensors
    if low_rank(solved, [after[n] for n in loop.tensors() if (rhs := after[n].rhs) is not None and rhs.op == "newton"]):
        return ""
    marks = [rhs for n in loop.tensors() if (rhs := after[n].rhs) is not None and rhs.op == "newton"]
    for column in {i for mark in marks for matrix in mark.args[2 + len(marks) :] for i in bound(matrix)}:
        index = system.index(column)
        width = build.value_of(index.size) if index.size is not None else None
        if width is None:
            return f"entries mix along `{index.name}`, whose length is not known: where it is large, steps are cheaper"
        if width * len(marks) > NARROW:
            return f"{width * len(marks)} entries mix along `{index.name}`: steps are cheaper"
    return ""


def _at_most_one(system: System, state: str, decay: Node) -> bool:
    """By the text alone, or where a claim `stable(S) when ..` says what its author assumed of the inputs."""
    assumed = [c.condition for c in system.claims if c.kind == "stable" and c.args[0] == state]
    bounds = (Bounds(system, condition).modulus(decay) for condition in (None, *assumed))
    return any(bound is not None and bound <= 1 for bound in bounds)


RISKS: dict[str, Callable[[System, Loop], str]] = {"convolution": unsafe_convolution, "newton": wide_newton}
