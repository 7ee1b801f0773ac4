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
from seqdsl.verify.suite import properties

TO_FORM = ("equals the equations", "split anywhere equals whole")


def emit(derived: Derived) -> tuple[str, str]:
    """The text of a form's module."""
    return api.emit(derived.system, "Drawn", backend, form=derived.form), "Drawn"


def check_text(text: str, cases: Sequence[Case], *, modules: bool) -> list[str]:
    """Raises what does not hold; returns the forms that the mixer has."""
    tree = parse_text(text)
    formatted = format_module(tree)
    assert parse_text(formatted) == tree, "the formatted text has another tree"
    assert format_module(parse_text(formatted)) == formatted, "formatting twice is not formatting once"
    system = load_system(text)
    assert read_system(print_system(system)) == system, "the printed system reads back as another one"
    found = []
    for form in FORMS:
        try:
            derived = derive(system, form)
        except SeqError:
            continue
        found.append(form)
        assert print_system(read_system(print_system(derived.system))) == print_system(derived.system), form
    for row in properties(system, emit if modules else None, backend):
        if not modules and row.what not in TO_FORM:
            continue
        for case in cases[: 1 if modules else None]:
            try:
                row.check(case)
            except Exception as error:
                error.add_note(f"{row.form}: {row.what}; case {case.name()}\n{text}")
                raise
    return found
