"""Every error code with its explanation: those of the language, and those of forms, backends and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqdsl.syntax.faults import Fault

COMPILER = {
    "unknown-form": "No form has this name. The help line lists those that there are; `auto` asks the planner for one.",
    "form-not-available": "The mixer has no such form, or not as a whole. The notes say for each recurrence what stands in "
    "the way. An explicit choice never falls back in silence; `auto` uses each form where it goes.",
    "unknown-backend": "A backend is loaded by its name: `torch`, or `triton`, which adds kernels for GPUs to the same modules.",
    "backend-not-available": "The backend is not there, or what it imports is not installed.",
    "validation-failed": "Before a module is written it is run on random inputs and compared with the interpreter. It "
    "differed, so nothing was written. This is a bug of the compiler.",
    "claim-refuted": "A claim of the file does not hold: the note has sizes or elements for which it fails. A refuted "
    "claim is no error of the language: `seqc check` reports it and exits with 1.",
    "not-associative": "A guarded fold by a declared monoid, a prefix scan too, needs an associative `combine`: without it "
    "only the fold over a whole axis is allowed, whose value is the balanced tree's (rule 34). The note has elements "
    "for which the law fails.",
    "file-not-written": "The folder that `-o` names cannot be made or written to.",
    "bad-input": "The inputs of a run are arrays by name, of the types that the header states.",
    "bad-setting": "An option of the command line has a value that it cannot have.",
    "bad-ir-text": "The text is no system as `seqc ir` prints one.",
    "invalid-system": "A system read from text is not well formed: a read names no tensor, or has the wrong number of "
    "subscripts, or an index has no axis.",
    "unsupported": "The backend has no text for an operator of the system, and no decomposition of it.",
}


def explanation(code: str) -> tuple[str, str] | None:
    """The long form of a code and a smallest file that has the fault (or ""), or None for what is no code."""
    if code in COMPILER:
        return COMPILER[code], ""
    if "-" not in code or "." in code or "/" in code:
        return None
    fault = _language().get(code)
    return (fault.explanation, fault.example) if fault is not None else None


def codes() -> list[str]:
    """Every code there is."""
    return [*COMPILER, *_language()]


def _language() -> dict[str, Fault]:
    from seqdsl.semantics.faults import SEMANTICS
    from seqdsl.syntax.faults import SYNTAX

    return {**SYNTAX, **SEMANTICS}
