"""What a recurrence is: its update map, its class, its monoid; proofs and counterexamples in exact arithmetic.

Architecture invariant: classes are found by computation on the update map; no mixer's name is known, and no form or
backend. Entry points: `classify_all`, `monoid_of`, `monoid_verdicts`, `check_claim`, `prove_equal`.
"""

from seqdsl.algebra.claims import check_claim
from seqdsl.algebra.classify import Recurrence, classify, classify_all
from seqdsl.algebra.declared import monoid_verdicts
from seqdsl.algebra.equality import prove_equal
from seqdsl.algebra.folds import check_folds
from seqdsl.algebra.monoid import MonoidForm, monoid_of
from seqdsl.algebra.verdict import Proved, Refuted, Tested, Unknown, Verdict

__all__ = ["MonoidForm", "Proved", "Recurrence", "Refuted", "Tested", "Unknown", "Verdict", "check_claim",
           "check_folds", "classify", "classify_all", "monoid_of", "monoid_verdicts", "prove_equal"]  # fmt: skip
