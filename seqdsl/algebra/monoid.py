"""The monoid of a recurrence's steps, by its class, with the obligations that a scan relies on.

Associativity is not correctness: a step must also be the action of its lift (homomorphism). For the affine classes both
are settled once the update is known to be affine: associativity is a theorem, and that a step is the action of its lift
is shown from the coefficients that `classify` computed (`lift.step_by_lift`).
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.algebra.classify import Recurrence
from seqdsl.algebra.semirings import RINGS
from seqdsl.algebra.verdict import Proved, Unknown, Verdict
from seqdsl.ir import build
from seqdsl.ir.node import reads
from seqdsl.ir.order import difference
from seqdsl.ir.system import System


@dataclass(frozen=True)
class MonoidForm:
    """Readable text of each piece, and a verdict for each law."""

    element: str
    identity: str
    combine: str
    lift: str
    project: str
    verdicts: tuple[tuple[str, Verdict], ...] = ()


def monoid_of(system: System, recurrence: Recurrence) -> MonoidForm | None:
    """The monoid, or None where the class has none (nonlinear, sequential)."""
    if recurrence.kind in ("nonlinear", "sequential"):
        return None
    if recurrence.kind == "semiring":
        return _semiring(recurrence, alone=_entries_alone(system, recurrence))
    if recurrence.kind == "diagonal" and len(recurrence.states) == 1 and len(recurrence.parts) <= 1 and recurrence.writes:
        coefficient = repr(recurrence.parts[0].coefficient) if recurrence.parts else "0"
        write = repr(recurrence.writes[0][1])
        return MonoidForm(
            "(a, b), entry by entry",
            "(1, 0)",
            "(a, b) then (a', b') = (a' a, a' b + b')",
            f"a = {coefficient}; b = {write}",
            "S = a S0 + b",
            _laws(
                recurrence,
                "theorem of the class: entrywise affine maps S -> a S + b compose associatively",
                "a = 1, b = 0",
            ),
        )
    return MonoidForm(
        "(A, b), A a matrix over the state's axes",
        "(I, 0)",
        "(A, b) then (A', b') = (A' A, A' b + b')",
        "A, b = the coefficients of the step",
        "S = A S0 + b",
        _laws(
            recurrence, "theorem of the class: affine maps S -> A S + b compose associatively", "A = I, b = 0"
        ),
    )


def _laws(recurrence: Recurrence, associative: str, identity: str) -> tuple[tuple[str, Verdict], ...]:
    weakest = min(recurrence.lift, key=lambda v: (isinstance(v, Proved), v.holds), default=None)
    return (
        ("associative", Proved("associativity", associative)),
        ("identity", Proved("identity", f"{identity} is the map S -> S")),
        ("homomorphism", weakest or Unknown("the step was split equation by equation, and not put together again")),
    )


def _semiring(recurrence: Recurrence, *, alone: bool) -> MonoidForm:
    ring = next(r for r in RINGS if r.name == recurrence.ring)
    add, mul = ring.name.split()
    law = f"theorem of the class: affine maps over the semiring ({add}, {mul}) compose associatively"
    if not alone:
        return MonoidForm(
            f"(A, b) over ({add}, {mul}), A a matrix over the state's axes",
            f"(I, {ring.zero}), I with {ring.one} on its diagonal and {ring.zero} elsewhere",
            f"(A, b) then (A', b') = (A' A, A' b {add} b'), products of ({add}, {mul})",
            "A, b = the coefficients of the step",
            f"S = A S0 {add} b",
            _laws(recurrence, law, f"A = I, b = {ring.zero}"),
        )
    return MonoidForm(
        f"(a, b) over ({add}, {mul})",
        f"({ring.one}, {ring.zero})",
        f"(a, b) then (a', b') = (a' {mul} a, (a' {mul} b) {add} b')",
        "the coefficients of the step",
        f"S = (a {mul} S0) {add} b",
        _laws(recurrence, law, f"a = {ring.one}, b = {ring.zero}"),
    )


def _entries_alone(system: System, recurrence: Recurrence) -> bool:
    """Does each entry of one state read itself alone, one step back?"""
    positions = dict(recurrence.loop.positions)
    for name, k in positions.items():
        own = system.tensors[name].indices
        rhs = system.tensors[name].rhs
        for read in reads(rhs) if rhs is not None else ():
            if read.attr not in positions:
                continue
            at = positions[str(read.attr)]
            rest = [*read.args[:at], *read.args[at + 1 :]]
            if rest != [build.index(i) for i in (*own[:k], *own[k + 1 :])]:
                return False
            back = difference(build.index(own[k]), read.args[at])
            if back not in ({}, {None: -1 if recurrence.reverse else 1}):
                return False
    return len(recurrence.states) == 1
