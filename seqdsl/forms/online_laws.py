"""What the online form of a normaliser relies on, written in the language and proved by the algebra.

Folding blocks of scores in any grouping is right because running maximum, denominator and weighted sum are a monoid, a
step is the action of its lift, and u / l does not depend on the shift m. None of this is asserted: each law is asked
of the algebra, and a change of `LAWS` changes the verdicts. Entry point: `online_laws`.
"""

from __future__ import annotations

from functools import cache

from seqdsl.algebra import Proved, Unknown, Verdict, monoid_verdicts, prove_equal
from seqdsl.algebra.declared import combine
from seqdsl.algebra.equal import equal
from seqdsl.ir import build
from seqdsl.ir.ops import make
from seqdsl.ir.system import System

LAWS = """
monoid running(m, l, u):
    identity = (-inf, 0, 0)
    lift(z, v) = (z, 1, v)
    combine(a, b):
        m = max(a.m, b.m)
        l = a.l * exp(a.m - m) + b.l * exp(b.m - m)
        u = a.u * exp(a.m - m) + b.u * exp(b.m - m)
    project -> y:
        y = u / l

mixer shifted(z[s], v[s], c[r], x[m], g[m], y[m]) -> o[r]:
    o[r] = (sum[s] exp(z - c) * v) / (sum[s] exp(z - c))
    n[r] = running[s](z, v)
    claim o == sum[s] softmax[s](z) * v
"""


@cache
def online_laws(text: str = LAWS) -> dict[str, Verdict]:
    """The monoid's laws, that one step is the action of its lift, and that a normaliser forgets a shift: what the
    algebra finds in `LAWS`."""
    from seqdsl.semantics import load_system

    system = load_system(text)
    found = {n: v for n, v in monoid_verdicts(system, "running").items() if n != "commutative"}
    found["step = act by lift"] = _step_is_lift(system)
    claim = system.claims[0]
    assert claim.system is not None
    found["shift invariance"] = prove_equal(claim.system, claim)
    return found


def _step_is_lift(system: System) -> Verdict:
    """(m, l, u) . lift(z, v) is the step m' = max(m, z), l' = exp(m - m') l + exp(z - m'), u' = .. + exp(z - m') v."""
    z, v, m, l, u = (build.read(n, [build.index("m")], "real") for n in ("x", "y", "g", "l", "u"))  # fmt: skip
    top = make("maximum", m, z)
    old, new = make("exp", build.sub(m, top)), make("exp", build.sub(z, top))
    step = {"m": top, "l": build.add(build.mul(old, l), new), "u": build.add(build.mul(old, u), build.mul(new, v))}
    lifted = combine(system.monoids["running"], {"m": m, "l": l, "u": u}, {"m": z, "l": build.ONE, "u": v})
    if all(equal(system, lifted[n], step[n]) for n in step):
        return Proved("step = act by lift", "symbolic identity: equal canonical forms, for all sizes")
    return Unknown("the canonical forms differ")
