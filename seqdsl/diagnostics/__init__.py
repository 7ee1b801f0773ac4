"""Errors for people: spans, the one user exception, the table of codes, and the renderer.

Architecture invariant: knows nothing of the language. Entry points: `SeqError`, `Diagnostic`, `Span`, `render`, `did_you_mean`.
"""

from seqdsl.diagnostics.errors import Diagnostic, Faults, SeqError, Source, Span
from seqdsl.diagnostics.near import did_you_mean
from seqdsl.diagnostics.render import render

__all__ = ["Diagnostic", "SeqError", "Source", "Span", "Faults", "did_you_mean", "render"]
