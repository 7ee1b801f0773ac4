"""Every broken derivation is found by what `seqc test` runs, with the smallest inputs; the right ones pass it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import seqdsl.backends.torch_module as backend

from seqdsl import api
from seqdsl.forms import Derived, derive
from seqdsl.ir.system import System
from seqdsl.semantics import load_system
from seqdsl.verify import suite
from seqdsl.verify.case import Case, case_named
from tests.mutants.table import MUTANTS
from tests.mutants.tools import Mutant

HERE = Path(__file__).resolve().parent
EXAMPLES = 12


@cache
def literal(mixer: str) -> System:
    """The equations of a mixer of this folder."""
    return load_system(HERE / "mixers.seq", mixer)


def emit(derived: Derived) -> tuple[str, str]:
    """The text of a form's module."""
    return api.emit(derived.system, "Mutant", backend, form=derived.form), "Mutant"


def outcomes(mutant: Mutant, monkeypatch: pytest.MonkeyPatch, case: Case | None = None) -> Iterator[suite.Outcome]:
    """What the suite says of the mutant's form, the derivation broken as the mutant says."""

    def broken_derive(system: System, form: str) -> Derived:
        derived = derive(system, form)
        return (
            replace(derived, system=mutant.system(derived.system)) if mutant.system and form == mutant.form else derived
        )

    def broken_emit(derived: Derived) -> tuple[str, str]:
        source, name = emit(derived)
        return (mutant.text(source) if mutant.text and derived.form == mutant.form else source), name

    monkeypatch.setattr(suite, "derive", broken_derive)
    return suite.run_suite(
        literal(mutant.mixer), broken_emit, backend, examples=EXAMPLES, forms=(mutant.form,), case=case
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_is_killed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = next((o for o in outcomes(mutant, monkeypatch) if not o.ok), None)
    assert killed is not None, "nothing that `seqc test` runs sees it"
    assert re.search(r"\|\w+\| = \d+", killed.failure) and re.search(r"seed \d+", killed.failure), killed.failure
    assert killed.case is not None and case_named(killed.case.name()) == killed.case
    again = next(o for o in outcomes(mutant, monkeypatch, killed.case) if o.what == killed.what)
    assert again.failure == killed.failure, "the case that a failure names shows another one"


@pytest.mark.parametrize(("mixer", "form"), sorted({(m.mixer, m.form) for m in MUTANTS}))
def test_the_right_derivation_lives(mixer: str, form: str) -> None:
    for outcome in suite.run_suite(literal(mixer), emit, backend, examples=EXAMPLES, forms=(form,)):
        assert outcome.ok, f"{outcome.what}: {outcome.failure}"


def test_there_are_many_and_their_names_differ() -> None:
    assert len(MUTANTS) >= 25 and len({m.name for m in MUTANTS}) == len(MUTANTS)
