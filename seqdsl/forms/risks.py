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
by themselves do. Entry points, of which a row of `forms.derive` names one: `check_convolution`, `check_newton`.
"""

from __future__ import annotations

from seqdsl.algebra.affine import NoMatch, diagonal
from seqdsl.algebra.interval import Bounds
from seqdsl.forms.any_convolution import to_any_convolution
from seqdsl.forms.dense import matrix_step
from seqdsl.forms.newton import to_newton
from seqdsl.forms.newton_rank import low_rank
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound
from seqdsl.ir.system import System

NARROW = 64  # entries of all states together that mix


def check_convolution(system: System, loop: Loop) -> None:
    """Raises `NoMatch` where a convolution would be no gain, or a numerical risk."""
    left = to_any_convolution(system, loop).tensors
    for name in loop.tensors():
        if name in left:
            raise NoMatch(f"every entry of `{name}` is wanted, and a scan gives them as well, without the error of an FFT")
    try:
        states = diagonal(system, loop)
    except NoMatch:
        claimed = {c.args[0] for c in system.claims if c.kind == "stable"}
        for name in [u.state.name for u in matrix_step(system, loop)[1].updates]:
            if name not in claimed:
                raise NoMatch(f"`{name}` is not claimed to be stable, and taps that grow have no FFT") from None
        return
    for state in states:
        name = state.update.state.name
        if state.decay in (build.ONE, build.const(-1)):
            raise NoMatch(f"the kernel of `{name}` does not decay")
        if not _at_most_one(system, name, state.decay):
            raise NoMatch(f"|{state.decay!r}| <= 1 is not shown, and a kernel that grows has no FFT")


def check_newton(system: System, loop: Loop) -> None:
    """Raises `NoMatch` where solving may cost more than steps do: for states that mix, and are not known to be narrow."""
    solved = to_newton(system, loop)
    states = [t for n in loop.tensors() if (t := solved.tensors[n]).rhs is not None and t.rhs.op == "newton"]
    if low_rank(solved, states):
        return
    marks = [t.rhs for t in states if t.rhs is not None]
    for column in {i for mark in marks for matrix in mark.args[2 + len(marks) :] for i in bound(matrix)}:
        index = system.index(column)
        width = build.value_of(index.size) if index.size is not None else None
        if width is None:
            why = f"entries mix along `{index.name}`, whose length is not known: where it is large, steps are cheaper"
            raise NoMatch(why)
        if width * len(marks) > NARROW:
            raise NoMatch(f"{width * len(marks)} entries mix along `{index.name}`: steps are cheaper")


def _at_most_one(system: System, state: str, decay: Node) -> bool:
    """By the text alone, or where a claim `stable(S) when ..` says what its author assumed of the inputs."""
    assumed = [c.condition for c in system.claims if c.kind == "stable" and c.args[0] == state]
    bounds = (Bounds(system, condition).modulus(decay) for condition in (None, *assumed))
    return any(bound is not None and bound <= 1 for bound in bounds)
