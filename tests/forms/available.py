"""The forms that a system has."""

from __future__ import annotations

from seqdsl.diagnostics import SeqError
from seqdsl.forms import FORMS, derive
from seqdsl.ir.system import System


def forms_of(system: System) -> list[str]:
    """Their names, in the order of the table; the others say that they are not available, and nothing else."""
    found = []
    for name in FORMS:
        try:
            derive(system, name)
            found.append(name)
        except SeqError as error:
            assert error.code == "form-not-available"
    return found
