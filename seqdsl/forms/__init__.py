"""The forms: rewritings of a system, each returned with the obligation it relies on.

Architecture invariant: a form knows no backend and no mixer's name; it takes a system and gives a system that the
interpreter can run, so that every form can be checked against the equations it came from. Adding a form is one file
and one row of `FORMS`. Entry points: `derive`, `available`.
"""

from seqdsl.forms.derive import DISTRIBUTED, FORMS, Derived, available, derive
from seqdsl.forms.obligations import Obligation

__all__ = ["DISTRIBUTED", "FORMS", "Derived", "Obligation", "available", "derive"]
