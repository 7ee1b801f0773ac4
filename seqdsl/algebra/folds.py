"""Which folds of declared monoids have a meaning (rule 34): a guarded one, a prefix scan too, needs associativity.

The value of a full fold is the balanced tree's, whatever the operator; over the points of a guard the tree's shape
would decide the value. Its identity, where it declares one, stands for the points that are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqdsl.algebra.declared import associativity, identity
from seqdsl.algebra.verdict import Refuted, Unknown, Verdict
from seqdsl.diagnostics import Diagnostic, Faults
from seqdsl.ir import build
from seqdsl.ir.node import walk
from seqdsl.ir.system import System


def check_folds(system: System, known: Mapping[str, Verdict] | None = None) -> Faults:
    """The guarded folds whose operator is not shown to be associative, or has a wrong identity; `known` has verdicts of
    associativity by monoid, of who reports on identities himself."""
    faults = Faults()
    guarded = {
        str(node.attr[0])
        for tensor in system.tensors.values()
        for node in (walk(tensor.rhs) if tensor.rhs is not None else ())
        if node.op == "fold" and node.args[-1] is not build.TRUE
    }
    for name in sorted(guarded):
        verdict = associativity(system, name) if known is None else known[name]
        if isinstance(verdict, Refuted | Unknown):
            shown = "is not associative" if isinstance(verdict, Refuted) else "is not shown to be associative"
            faults.append(
                Diagnostic(
                    "not-associative",
                    f"a guarded fold by `{name.rpartition('.')[2]}`, which {shown}",
                    system.spans.get(("monoid", name)),
                    label="the order in which it combines would decide the value",
                    notes=(verdict.describe(),),
                    help="fold over the whole axis, without a guard, or write an associative `combine`",
                )
            )
        elif known is None and isinstance(one := identity(system, name), Refuted):
            faults.append(
                Diagnostic(
                    "claim-refuted",
                    f"a guarded fold by `{name.rpartition('.')[2]}`, whose `identity` is none",
                    system.spans.get(("monoid", name)),
                    notes=(one.counterexample,),
                    help="write the element that changes nothing, or leave `identity` out where no fold is empty",
                )
            )
    return faults
