"""What `seqc check` says of a mixer: each recurrence's class, its monoid, every verdict, the forms and their costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

from seqdsl.algebra import check_claim, check_folds, classify_all, monoid_of, monoid_verdicts, prove_equal
from seqdsl.algebra.classify import Recurrence
from seqdsl.algebra.interval import Bounds
from seqdsl.algebra.monomials import monomials
from seqdsl.algebra.verdict import Proved, Refuted, Unknown, Verdict
from seqdsl.diagnostics import Diagnostic, SeqError, render
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.state import NotSteppable, state_record
from seqdsl.ir.system import Claim, System
from seqdsl.plan import Cost, choose, cost, costs


@dataclass(frozen=True)
class Finding:
    """One recurrence: its class, and what is known of its monoid."""

    recurrence: Recurrence
    monoid: Any
    verdicts: dict[str, Verdict]


@dataclass(frozen=True)
class Report:
    """`ok` is False when a claim, or a law that a form relies on, is refuted."""

    system: System
    findings: tuple[Finding, ...]
    claims: tuple[tuple[Claim, Verdict], ...]
    forms: dict[str, Cost | SeqError]
    chosen: str
    state: tuple[str, ...] | str
    monoids: dict[str, dict[str, Verdict]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(lines(self))

    @property
    def ok(self) -> bool:
        """Nothing that is claimed is refuted."""
        return not self.refuted()

    def refuted(self) -> list[Diagnostic]:
        """One diagnostic for each refuted claim, at the claim, with the numbers; and for each fold without a meaning."""
        found = [
            Diagnostic("claim-refuted", f"`{c.text}` does not hold", c.span, notes=(v.counterexample,))
            for c, v in self.claims
            if isinstance(v, Refuted)
        ]
        for name, verdicts in self.monoids.items():
            claims = {c.kind: c for c in self.system.monoids[name].claims}
            for law, verdict in verdicts.items():
                claimed = claims.get(law)
                if isinstance(verdict, Refuted) and (
                    claimed is not None or law in ("identity", "left identity", "right identity")
                ):
                    span = claimed.span if claimed is not None else self.system.spans.get(("monoid", name))
                    found.append(
                        Diagnostic(
                            "claim-refuted",
                            f"the monoid `{name}` is not {_adjective(law)}",
                            span,
                            notes=(verdict.counterexample,),
                        )
                    )
        known = {name: verdicts["associative"] for name, verdicts in self.monoids.items()}
        told = {c.span for m in self.system.monoids.values() for c in m.claims if c.kind == "associative"}
        told &= {d.span for d in found}
        return found if told else [*found, *check_folds(self.system, known)]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "mixer": self.system.name,
            "ok": self.ok,
            "recurrences": [
                {
                    "states": list(f.recurrence.states),
                    "axis": f.recurrence.axis,
                    "reverse": f.recurrence.reverse,
                    "class": f.recurrence.kind,
                    "ring": f.recurrence.ring,
                    "time_invariant": f.recurrence.time_invariant,
                    "evidence": f.recurrence.evidence,
                    "verdicts": {k: v.to_dict() for k, v in f.verdicts.items()},
                }
                for f in self.findings
            ],
            "claims": [{"claim": c.text, **v.to_dict()} for c, v in self.claims],
            "monoids": {n: {k: v.to_dict() for k, v in vs.items()} for n, vs in self.monoids.items()},
            "forms": {
                n: c.to_dict() if isinstance(c, Cost) else {"unavailable": c.diagnostics[0].message}
                for n, c in self.forms.items()
            },
            "auto": self.chosen,
            "state": self.state if isinstance(self.state, str) else list(self.state),
        }


def _adjective(law: str) -> str:
    return {
        "identity": "a monoid with this identity",
        "left identity": "a monoid with this identity on the left",
        "right identity": "a monoid with this identity on the right",
    }.get(law, law)


def report(system: System, *, test: bool = True) -> Report:
    """Everything about a system. With `test`, claims that algebra leaves open are tried on numbers."""
    findings = []
    for recurrence in classify_all(system):
        form = monoid_of(system, recurrence)
        findings.append(Finding(recurrence, form, dict(form.verdicts) if form is not None else {}))
    try:
        state: tuple[str, ...] | str = tuple(e.name for e in state_record(system))
    except NotSteppable as error:
        state = f"not steppable: {error}"
    claims = tuple((c, verdict_of(system, c, test=test)) for c in system.claims)
    monoids = {name: monoid_verdicts(system, name) for name in system.monoids}
    return Report(system, tuple(findings), claims, costs(system), choose(system).form, state, monoids)


def verdict_of(system: System, claim: Claim, *, test: bool = True) -> Verdict:
    """Algebra first; where it cannot tell, random inputs. Of a condition that never holds nothing is said."""
    never = Bounds(system, claim.condition).contradiction
    if never is not None:
        return Unknown(f"its condition never holds: nothing fulfils `{never!r}` beside the rest of it")
    if claim.kind == "equal" and claim.system is not None:
        verdict = prove_equal(claim.system, claim)
    elif claim.kind == "cost":
        verdict = _cost_claim(system, claim)
    else:
        verdict = check_claim(system, claim)
    if isinstance(verdict, Unknown) and test:
        from seqdsl.verify.claims import test_claim

        tried = test_claim(system, claim)
        return verdict if isinstance(tried, Unknown) and claim.kind not in ("equal",) else tried
    return verdict


def _cost_claim(system: System, claim: Claim) -> Verdict:
    """`cost(o) <= bound`: the leading terms of the chosen form's flops, compared as orders of growth."""
    chosen = choose(system)
    leading = list(cost(chosen.system).flops)
    allowed = _monomials(system, claim)
    for monomial in leading:
        names = [n for n in monomial if not n.isdigit()]
        if not any(_divides(names, list(a)) for a in allowed):
            shown = " ".join(f"|{n}|" for n in names)
            return Refuted(f"the {chosen.form} form needs {shown} operations, which the bound does not cover")
    return Proved(
        "cost", f"every term of the {chosen.form} form's cost is covered by the bound, up to a constant factor"
    )


def _monomials(system: System, claim: Claim) -> list[tuple[str, ...]]:
    """The axes in each term of the bound, as often as their lengths are multiplied: `|t|^2` is t twice."""
    return [tuple(axis for f in factors for axis in _axes(system, f))
            for factors, _ in monomials(claim.nodes[0]) if _is_added(factors)]


def _is_added(factors: list[Node]) -> bool:
    """Of a product: is the number in it positive?"""
    return prod(v for f in factors if (v := build.value_of(f)) is not None) > 0


def _axes(system: System, factor: Node) -> tuple[str, ...]:
    if factor.op == "pow":
        times = build.value_of(factor.args[1])
        return _axes(system, factor.args[0]) * times if isinstance(times, int) and times > 0 else ()
    return (system.axis(str(factor.attr)),) if factor.op == "size" else ()


def _divides(names: list[str], allowed: list[str]) -> bool:
    rest = list(allowed)
    for name in names:
        if name not in rest:
            return False
        rest.remove(name)
    return True


def lines(
    found: Report,
    mark: Callable[[object, str], str] = lambda text, style: str(text),
    escape: Callable[[object], str] = str,
    styled: Callable[[Verdict], str] = lambda verdict: verdict.describe(),
) -> Iterator[str]:
    """The report as text: plain, or as `mark`, `escape` and `styled` write for a terminal."""
    header = ", ".join(f"{t.name}[{','.join(t.indices)}]" for t in found.system.inputs())
    yield f"{mark(found.system.name, 'bold')}({escape(header)})"
    for finding in found.findings:
        yield from _recurrence_lines(finding, mark, escape, styled)
    if not found.findings:
        online = not isinstance(found.forms.get("chunkwise"), SeqError)
        yield "  no recurrence: " + ("its normalisers can be read block by block" if online else "parallel as it stands")
    for name, verdicts in found.monoids.items():
        yield f"  monoid {escape(name)}"
        yield from (f"    {escape(law)}: {styled(verdict)}" for law, verdict in verdicts.items())
    for claim, verdict in found.claims:
        yield f"  claim {escape(claim.text)}: {styled(verdict)}"
    yield "  forms: " + escape(forms_line(found))
    state = found.state if isinstance(found.state, str) else ", ".join(found.state) or "none"
    yield f"  state: {escape(state)}"
    for diagnostic in found.refuted():
        yield escape(render(diagnostic))



def forms_line(found: Report) -> str:
    """The forms the mixer has, the planner's choice marked."""
    names = [n for n, c in found.forms.items() if not isinstance(c, SeqError)]
    return ", ".join(f"{n} (auto)" if n == found.chosen else n for n in names)


def _recurrence_lines(
    finding: Finding,
    mark: Callable[[object, str], str],
    escape: Callable[[object], str],
    styled: Callable[[Verdict], str],
) -> Iterator[str]:
    r = finding.recurrence
    way = "down" if r.reverse else "along"
    traits = [t for t, on in (("time-invariant", r.time_invariant), ("complex", r.complex)) if on]
    ring = "" if r.ring in ("+ *", "") else f" over ({r.ring.replace(' ', ', ')})"
    states = ", ".join(r.states)
    listed = f" ({', '.join(traits)})" if traits else ""
    yield f"  recurrence {mark(states, 'bold')} {way} {r.axis}: {mark(r.kind, 'cyan')}{escape(ring)}{listed}"
    if r.evidence:
        yield f"    {escape(r.evidence)}"
    yield from (f"    {escape(law)}: {styled(verdict)}" for law, verdict in finding.verdicts.items())
