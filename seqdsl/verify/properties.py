"""Properties of a derived system, tried by the interpreter: the equations as they are written decide.

Each function makes a check of one example: it returns whether the example could be tried, and raises `Differs` with
the evidence where the property does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from seqdsl.forms import Derived
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.sizes import Sizes
from seqdsl.ir.state import flatten
from seqdsl.ir.system import System
from seqdsl.verify.case import Array, Case, once_for_each_case
from seqdsl.verify.modules import relative_rms

Check = Callable[[Case], bool]
FORM_TOLERANCE = 1e-9


class Differs(AssertionError):
    """A property does not hold, with the evidence; `case` is the example that shows it."""

    def __init__(self, text: str, case: Case) -> None:
        super().__init__(text)
        self.case = case


def named(sizes: Sizes) -> dict[str, int]:
    """Lengths and options, as `interpret` takes them."""
    return {**sizes.lengths, **sizes.options}


def agree(case: Case, sizes: Sizes, found: Mapping[str, Any], wanted: Mapping[str, Any], kind: str) -> None:
    """Every wanted value is found, to rounding in float64."""
    for name in wanted:
        error = relative_rms(np.asarray(found.get(name, np.nan)), np.asarray(wanted[name]))
        if not error <= FORM_TOLERANCE:
            raise Differs(f"{kind} `{name}` differs by {error:.2g} (relative) at {case.describe(sizes)}", case)


@once_for_each_case
def literal_run(system: System, case: Case) -> dict[str, dict[str, Any]]:
    """What the equations give for the inputs that the case draws."""
    drawn = case.draw(system)
    assert drawn is not None
    return interpret(system, inputs=drawn[1], sizes=named(drawn[0]))


def same_values(system: System, derived: Derived) -> Check:
    """Outputs and the last state are those of the equations."""

    def check(case: Case) -> bool:
        drawn = case.draw(system)
        if drawn is None:
            return False
        sizes, inputs = drawn
        wanted = literal_run(system, case)
        found = interpret(derived.system, inputs=inputs, sizes=named(sizes))
        agree(case, sizes, found["outputs"], wanted["outputs"], "output")
        agree(case, sizes, flatten(found["state"]), flatten(wanted["state"]), "state")
        return True

    return check


def cuttable(system: System) -> bool:
    """Can inputs be cut along the stream: does one have it, and no parameter?"""
    stream = system.stream
    if stream is None or not any(system.axis(i) == stream for t in system.inputs() for i in t.indices):
        return False
    return not any(system.axis(i) == stream for t in system.params() for i in t.indices)


def splits(system: System, derived: Derived) -> Check:
    """Outputs of two pieces, the second continued from the first's state, are those of the whole; so is the state."""
    stream = system.stream

    def check(case: Case) -> bool:
        drawn = case.draw(system)
        if drawn is None or stream is None or not cuttable(system):
            return False
        sizes, inputs = drawn
        cut = case.seed % (sizes[stream] + 1)
        whole = literal_run(system, case)
        given = {**lengths_without(system, sizes, stream), **sizes.options}
        state, pieces = None, []
        for part in (slice(0, cut), slice(cut, None)):
            own = {n: piece(system, n, a, stream, part) for n, a in inputs.items()}
            result = interpret(derived.system, inputs=own, sizes=given, state=state)
            pieces.append(result["outputs"])
            state = result["state"]
        joined = join(system, stream, pieces)
        agree(case, sizes, joined, {n: whole["outputs"][n] for n in joined}, f"cut at {cut}, output")
        last = {n: v for n, v in flatten(whole["state"]).items() if n != "position"}
        agree(case, sizes, flatten(state or {}), last, f"cut at {cut}, state")
        return True

    return check


def causality(system: System, derived: Derived) -> Check:
    """Inputs after a position change no output up to it, in the form as little as in the equations."""
    stream = system.stream

    def check(case: Case) -> bool:
        drawn = case.draw(system)
        if drawn is None or stream is None or not cuttable(system) or not drawn[0][stream]:
            return False
        sizes, inputs = drawn
        cut = case.seed % sizes[stream]
        changed = {n: later_changed(system, n, a, stream, cut + 1) for n, a in inputs.items()}
        before, after = (interpret(derived.system, inputs=i, sizes=named(sizes))["outputs"] for i in (inputs, changed))
        parts = [join(system, stream, [{n: piece(system, n, o[n], stream, slice(0, cut + 1)) for n in o}])
                 for o in (after, before)]  # fmt: skip
        agree(case, sizes, parts[0], parts[1], f"after a change behind {stream} = {cut}, output")
        return True

    return check


def later_changed(system: System, name: str, array: Array, stream: str, start: int) -> Array:
    """The array with its real entries at and after a position changed."""
    if system.tensors[name].dtype not in ("real", "complex"):
        return array
    array = array.copy()
    for k, i in enumerate(system.tensors[name].indices):
        if system.axis(i) == stream:
            place = (slice(None),) * k + (slice(start, None),)
            array[place] = array[place] * 0.5 - 0.25
    return array


def lengths_without(system: System, sizes: Sizes, stream: str) -> dict[str, int]:
    """The lengths that are free and not the stream's; what formulas give is worked out anew for a piece."""
    return {
        n: v for n, v in sizes.lengths.items() if system.axis(n) != stream and system.index(system.axis(n)).size is None
    }


def piece(system: System, name: str, array: Any, stream: str, part: slice, lead: int = 0) -> Any:
    """Some positions of a tensor along the stream, behind `lead` axes that have no name."""
    own = (part if system.axis(i) == stream else slice(None) for i in system.tensors[name].indices)
    return array[(*(slice(None),) * lead, *own)]


def join(system: System, stream: str, pieces: list[dict[str, Any]]) -> dict[str, Array]:
    """The outputs that have the streamed axis, and once only, one piece after another."""
    found = {}
    for name in pieces[0]:
        axes = [k for k, i in enumerate(system.tensors[name].indices) if system.axis(i) == stream]
        if len(axes) == 1:
            found[name] = np.concatenate([p[name] for p in pieces], axes[0])
    return found
