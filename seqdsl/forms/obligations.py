"""What a form relies on: the obligations of its own law, of the operators that it introduces, and of normalisers.

An obligation is proved by algebra where it can be, and tested always. Entry points: `Obligation`, `introduced`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seqdsl.algebra.verdict import Verdict
from seqdsl.forms.newton_rank import couplings
from seqdsl.forms.online_laws import online_laws
from seqdsl.ir.node import walk
from seqdsl.ir.system import System


@dataclass(frozen=True)
class Obligation:
    """What must hold for a rewriting to be right: proved by algebra where it can be, tested always. `prove` gives the
    verdicts where the law is one of a monoid that the form brings along."""

    law: str
    because: str
    prove: Callable[[], Mapping[str, Verdict]] | None = None


ONLINE_LAW = Obligation(
    "(running maximum, denominator, weighted sum) is a monoid with identity (-inf, 0, 0)",
    "a step is the action of its lift, and a softmax forgets a shift: blocks are folded in any grouping",
    online_laws,
)
ALL_PAIRS = Obligation("none", "the normalisers as they are written, all pairs at once")


FEEDBACK_LAW = Obligation(
    "inner reads are the unknowns of a unit lower triangular system; writes superpose",
    "an inner read answers to earlier writes only, and the state is affine in what is written",
)
LOW_RANK_LAW = Obligation(
    "(D2 + U2 W2')(D1 + U1 W1') = D2 D1 + [D2 U1 + U2 (W2' U1), U2] [W1, D1' W2]'",
    "entries mix through a few sums for all of them: slopes are a diagonal and columns times rows, whose products add "
    "their ranks over a piece, and matrices over the entries are formed for 16 of them at most",
)
SCAN_LAW = Obligation(
    "composition of affine maps is associative, with the map S -> S as its identity",
    "affine maps over a semiring compose associatively, entry by entry or as matrices; the update is affine over it",
)
# What a form relies on beside its own law, by the operator it introduces.
OPERATOR_LAWS: dict[str, Obligation] = {
    **dict.fromkeys(("affine_scan", "matrix_scan", "ring_scan"), SCAN_LAW),
    "ifft": Obligation(
        "a circular convolution is a product of spectra",
        "the Fourier transform is linear and invertible, and turns a shift by s into the factor exp(2 pi i f s / n)",
    ),
    "decayed_solve": FEEDBACK_LAW,
    "micro_solve": FEEDBACK_LAW,
    "block_solve": FEEDBACK_LAW,
    "decayed_product": Obligation(
        "the product of the states before and after a step is a sum over the pairs of a write before and one after",
        "both states are sums over their writes; a recurrence that runs backwards is one that runs forwards, mirrored",
    ),
}
READING = ("decayed_", "block_", "micro_")  # how operators begin that read a state, or solve for reads


def introduced(before: System, after: System) -> tuple[list[Obligation], bool]:
    """The laws of the operators that a rewriting has brought in, and whether one of them reads a state, or solves for
    reads."""
    old, found = ({n.op for t in s.derived() if t.rhs is not None for n in walk(t.rhs)} for s in (before, after))
    new = found - old
    laws = [LOW_RANK_LAW] if "newton" in new and couplings(after) else []
    return [*laws, *(law for op, law in OPERATOR_LAWS.items() if op in new)], any(op.startswith(READING) for op in new)
