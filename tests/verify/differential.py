"""One text through the whole compiler: printers that read back, every form, modules, gradients."""

from __future__ import annotations

from collections.abc import Sequence

import seqdsl.backends.torch_module as backend

from seqdsl import api
from seqdsl.diagnostics import SeqError
from seqdsl.forms import FORMS, Derived, derive
from seqdsl.ir.text import print_system, read_system
from seqdsl.semantics import load_system
from seqdsl.syntax import format_module, parse_text
from seqdsl.verify.case import Case
from seqdsl.verify.module_properties import Emitted
from seqdsl.verify.suite import Property, of_form

TO_FORM = ("equals the equations", "split anywhere equals whole")


def emit(derived: Derived) -> tuple[str, str]:
    """The text of a form's module."""
    return api.emit(derived.system, "Drawn", backend, form=derived.form), "Drawn"


def check_text(text: str, cases: Sequence[Case], *, modules: bool, mixer: str | None = None) -> list[str]:
    """Raises what does not hold; returns the forms that the mixer has."""
    tree = parse_text(text)
    formatted = format_module(tree)
    again = parse_text(formatted)
    assert again == tree, "the formatted text has another tree"
    assert format_module(again) == formatted, "formatting twice is not formatting once"
    system = load_system(text, mixer)
    assert read_system(print_system(system)) == system, "the printed system reads back as another one"
    found, plain = [], None
    for form in FORMS:
        try:
            derived = derive(system, form)
        except SeqError:
            continue
        found.append(form)
        printed = print_system(derived.system)
        assert print_system(read_system(printed)) == printed, form
        emitted = Emitted(derived.system, *emit(derived), backend) if modules else None
        plain = plain or emitted
        for row in of_form(system, derived, emitted, plain):
            if modules or row.what in TO_FORM:
                check(row, cases[: 1 if modules else None], text)
    return found


def check(row: Property, cases: Sequence[Case], text: str) -> None:
    """One property; what fails is told with its text."""
    for case in cases:
        try:
            row.check(case)
        except Exception as error:
            error.add_note(f"{row.form}: {row.what}; case {case.name()}\n{text}")
            raise
