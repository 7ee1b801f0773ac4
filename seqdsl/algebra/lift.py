"""Is a step the action of its lift? The linear terms that the classifier read off an update, put back together.

Associativity is not correctness: a monoid of affine maps composes associatively whatever its coefficients are. What ties
it to the recurrence is that the update equals the sum of its terms, and that is shown here from the terms themselves,
by canonical forms; where these do not decide, by exact evaluation (DERIVATIONS 1.2, step 10). A mismatch is a fault of
the compiler, not of the file, and is raised as one.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import DecimalException

from seqdsl.algebra.affine import Term, Update
from seqdsl.algebra.equal import same
from seqdsl.algebra.exact import World, evaluate
from seqdsl.algebra.numbers import NotExact, agree
from seqdsl.algebra.verdict import Proved, Tested, Unknown, Verdict
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.system import System

LAW = "a step is the action of its lift"
_TRIALS = 3


def step_by_lift(system: System, update: Update, terms: Iterable[Term], rest: Node) -> Verdict:
    """Does `sum of coefficient * read, plus the rest` equal the update? Proved, tested, or unknown."""
    whole = rest
    for term in terms:
        product = build.mul(term.coefficient, term.read)
        whole = build.add(whole, build.reduce("sum", term.over, product, term.guard))
    if same(system, update.rhs, whole):
        return Proved(LAW, "symbolic identity: the update is the sum of its linear terms, for all sizes")
    done = 0
    for seed in range(_TRIALS):
        try:
            done += _agrees_at(system, update, whole, seed)
        except (NotExact, DecimalException, RecursionError, ZeroDivisionError, KeyError, OverflowError):
            continue
    if not done:
        return Unknown("the coefficients are read off the update, and it has no exact evaluation")
    return Tested(done, 0.0, "exact evaluation of the update and of the sum of its linear terms")


def _agrees_at(system: System, update: Update, whole: Node, seed: int) -> bool:
    world = World(system, seed)
    for place in (0, 1):
        at = {i: min(place + (i == update.time), world.size(i) - 1) for i in (*update.state.indices, *whole.free)}
        left, right = evaluate(update.rhs, at, world), evaluate(whole, at, world)
        if not agree(left, right):
            raise AssertionError(f"the linear terms of `{update.state.name}` do not add up to its update: {whole!r}")
    return True
