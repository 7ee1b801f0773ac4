"""`seqc test`: property-based equivalence of every form of a mixer, with the smallest failing inputs.

Each property is a Hypothesis test over lengths (T of 0, 1, and not a multiple of a chunk), seeds, and whether decays
are harsh (0, -1e-6, -20, -200 mixed). Everything is compared with the interpreter running the equations as they stand,
and gradients with those of the equations' own module.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from seqdsl.diagnostics import SeqError
from seqdsl.forms import DISTRIBUTED, FORMS, Derived, derive
from seqdsl.ir import build
from seqdsl.ir.node import walk
from seqdsl.ir.sizes import SizeError
from seqdsl.ir.system import Claim, System
from seqdsl.plan import as_chosen
from seqdsl.verify.case import LENGTHS, Case
from seqdsl.verify.module_properties import Emitted, future, gradients, module_matches, packable, packed, single, steps
from seqdsl.verify.modules import has_state
from seqdsl.verify.properties import Check, Differs, causality, cuttable, same_values, splits

Emit = Callable[[Derived], tuple[str, str]]


@dataclass(frozen=True)
class Outcome:
    """One property of one form: how many examples held, or the smallest that did not."""

    form: str
    what: str
    examples: int
    failure: str = ""
    case: Case | None = None  # the smallest example that fails

    @property
    def ok(self) -> bool:
        """Did every example hold?"""
        return not self.failure

    def to_dict(self) -> dict[str, object]:
        """Plain data for `--json`."""
        return {
            "form": self.form,
            "property": self.what,
            "examples": self.examples,
            "ok": self.ok,
            "failure": self.failure,
            "case": self.case.name() if self.case is not None else None,
        }


# What is said of the derived equations, whatever becomes of them.
EQUATIONS = SAME, SPLIT, BLIND = "equals the equations", "split anywhere equals whole", "the future changes nothing"


@dataclass(frozen=True)
class Property:
    """One property of one form, not yet tried; `share` of the examples is what it is worth."""

    form: str
    what: str
    check: Check = field(repr=False)
    share: float = 1.0
    long: bool = False  # tried at lengths beyond a chunk of the backends, too

    @property
    def of_module(self) -> bool:
        """Is it one of what was generated, and not of the derived equations?"""
        return self.what not in EQUATIONS


# Beyond 32 and 64, which chunks of the backends hold, and no multiple of them; what a cut leaves is longer than 64, too.
LONG = (Case(33, 20, True), Case(67, 2, False), Case(67, 65, True))


def run_suite(
    system: System,
    emit: Emit | None,
    backend: Any,
    *,
    examples: int = 25,
    seed: int | None = None,
    forms: tuple[str, ...] = (),
    case: Case | None = None,
) -> Iterator[Outcome]:
    """Every property of every form that the mixer has. `emit` gives text and class name of a form's module.

    `forms` leaves the others out; with a `case`, only that example is tried.
    """
    for row in properties(system, emit, backend, forms=forms):
        yield try_property(row, examples=examples, seed=seed, case=case)


def reproduce(file: str, mixer: str, outcome: Outcome) -> str:
    """The command that tries the smallest failing example again, and nothing else."""
    case = f" --case {outcome.case.name()}" if outcome.case is not None else ""
    return f"seqc test {shlex.quote(file)} --mixer {mixer} --form {outcome.form}{case}"


def properties(system: System, emit: Emit | None, backend: Any, *, forms: tuple[str, ...] = ()) -> Iterator[Property]:
    """What there is to try, form by form; text is emitted when it is reached."""
    plain: Emitted | None = None
    for name in (*FORMS, DISTRIBUTED):
        if forms and name not in forms and name != "recurrent":
            continue
        try:
            derived = as_chosen(derive(system, name))
        except SeqError:
            continue
        emitted = Emitted(derived.system, *emit(derived), backend) if emit is not None else None
        plain = plain or emitted
        if not forms or name in forms:
            yield from of_form(system, derived, emitted, plain)


def of_form(system: System, derived: Derived, emitted: Emitted | None, plain: Emitted | None) -> Iterator[Property]:
    """The properties of one form: of the derived system, and of its module where there is one."""
    name, steppable = derived.form, has_state(derived.system)
    claimed = (c for c in system.claims if c.kind == "causal" and not _about_sizes(c))
    causal = any(system.axis(c.args[0]) == system.stream for c in claimed)
    causal = (causal or steppable) and cuttable(system)
    yield Property(name, SAME, same_values(system, derived))
    if steppable:
        yield Property(name, SPLIT, splits(system, derived))
    if causal:
        yield Property(name, BLIND, causality(system, derived), 0.5)
    if emitted is None or plain is None:
        return
    yield Property(name, "module equals the equations", module_matches(emitted), 0.5, long=True)
    if steppable:
        yield Property(name, "module steps as it runs", steps(emitted), 0.25)
    if causal:
        yield Property(name, "module does not see the future", future(emitted), 0.25)
    if packable(system):
        yield Property(name, "packed sequences do not mix", packed(emitted, system), 0.25)
    if name != "recurrent" or not steppable:
        yield Property(name, "gradients are those of the steps", gradients(emitted, plain), 0.4, long=True)
    if steppable:
        yield Property(name, "gradients through a state", gradients(emitted, plain, cut=True), 0.4, long=True)
    yield Property(name, "float32 is close to float64", single(emitted, plain), 0.25)


def _about_sizes(claim: Claim) -> bool:
    """Does its condition leave out sizes? What it says of inputs, every draw respects."""
    facts = build.conjuncts(claim.condition) if claim.condition is not None else ()
    return any(not any(n.op == "read" for n in walk(fact)) for fact in facts)


def try_property(row: Property, *, examples: int, seed: int | None, case: Case | None = None) -> Outcome:
    """Run one property: deterministic unless a seed is given, shrinking to the smallest case."""
    if case is not None:
        try:
            return Outcome(row.form, row.what, int(row.check(case)))
        except Differs as failure:
            return Outcome(row.form, row.what, 0, str(failure), failure.case)
    ran = [0]
    try:
        try:
            for one in _drawn(examples, row.share, seed):
                ran[0] += _tried(row, one)
        except Exception:
            ran = [0]
            _search(row, examples, seed, ran)
            raise
        for one in LONG if row.long else ():
            ran[0] += row.check(replace(one, seed=one.seed + (one.stream + 1) * (seed or 0)))
    except Differs as failure:
        return Outcome(row.form, row.what, ran[0], str(failure), failure.case)
    return Outcome(row.form, row.what, ran[0])


def _tried(row: Property, case: Case) -> bool:
    try:
        return row.check(case)
    except SizeError as error:
        if error.code != "empty-fold":
            raise
        return False


@cache
def _drawn(examples: int, share: float, seed: int | None) -> tuple[Case, ...]:
    """The cases that Hypothesis tries of a property that holds. It knows nothing of which one: they are drawn once for all."""
    found: list[Case] = []

    def noted(case: Case) -> bool:
        found.append(case)
        return True

    _search(Property("", "", noted, share), examples, seed, [0])
    return tuple(found)


def _search(row: Property, examples: int, seed: int | None, ran: list[int]) -> None:
    """The Hypothesis test of a property; what it raises is of the smallest case that fails."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as with_seed
    from hypothesis import strategies as st

    cases = st.builds(Case, st.sampled_from(LENGTHS), st.integers(0, 10_000), st.booleans())

    # Without a seed Hypothesis draws by the text of this function: another text, other cases.
    @settings(
        max_examples=max(3, round(examples * row.share)),
        deadline=None,
        derandomize=seed is None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(cases)
    def test(case: Case) -> None:
        try:
            ran[0] += row.check(case)
        except SizeError as error:
            if error.code != "empty-fold":  # no identity: these equations say nothing of no positions
                raise

    (with_seed(seed)(test) if seed is not None else test)()
