"""The cheapest form that is safe, and a system in the form that is asked for."""

from __future__ import annotations

from dataclasses import replace

from seqdsl.diagnostics import SeqError
from seqdsl.forms import DISTRIBUTED, FORMS, Derived, derive
from seqdsl.forms.derive import apply
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.system import System
from seqdsl.plan.counting import Cost, cost


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
