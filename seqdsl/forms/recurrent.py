"""The recurrent form: the equations themselves, with one change where a float32 state would drift.

A decay that does not depend on time and is near 1 is rounded once and applied at every step, so that its error, 3e-8,
adds up in one direction: 1e-4 after 4096 steps. Such a step is written `S[t-1] + ((a - 1) S[t-1] + b)`, with a - 1 as
expm1 of the logarithm; which of the two ways a step takes is decided by numbers known before the loop, so a strong decay
or a reset still forgets exactly. A decay that changes from step to step errs in either direction, and stays as written.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import Diagonal, NoMatch, diagonal
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, recurrences
from seqdsl.ir.ops import make
from seqdsl.ir.system import System, Tensor

SLOW = build.const(build.Fraction(-1, 2))


def steadied(system: System) -> System:
    """Each recurrence with a constant decay in the form that does not drift."""
    for loop in recurrences(system):
        system = _steadied(system, loop)
    return system


def _steadied(system: System, loop: Loop) -> System:
    try:
        states = diagonal(system, loop)
    except NoMatch:
        return system
    changed: list[Tensor] = []
    for state in states:
        constant = state.log_decay is not None and state.update.time not in state.decay.free
        if not constant or state.decay is build.ONE or state.update.state.dtype not in ("real", "complex"):
            continue
        changed += _slow_step(state)
    return system.with_tensors(*changed)


def _slow_step(state: Diagonal) -> list[Tensor]:
    """The state's equation, and what it needs of the decay as tensors of their own."""
    tensor, update = state.update.state, state.update
    before = update.before()
    value = build.value_of(state.decay)
    if value is not None:
        if not build.Fraction(1, 2) < value < 2:
            return []
        rate = build.const(build.Fraction(value) - 1)
        return [replace(tensor, rhs=build.add(before, build.add(build.mul(rate, before), state.write)))]
    assert state.log_decay is not None
    indices = tuple(i for i in tensor.indices if i in state.log_decay.free)
    slow = make("lt", SLOW, state.log_decay)
    parts = {
        "rate": build.where(slow, make("expm1", state.log_decay), make("exp", state.log_decay)),
        "kept": build.where(slow, build.const(build.Fraction(1)), build.const(build.Fraction(0))),
    }
    made = [
        Tensor(f"{tensor.name}.{name}", indices, "real", "derived", rhs, comment=f"{name} of {tensor.name} in a step")
        for name, rhs in parts.items()
    ]
    rate, kept = (build.read(t.name, [build.index(i) for i in indices], "real") for t in made)
    rhs = build.add(build.mul(kept, before), build.add(build.mul(rate, before), state.write))
    return [*made, replace(tensor, rhs=rhs)]
