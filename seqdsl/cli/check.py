"""`seqc check FILE`: classes, monoids, verdicts, forms."""

from __future__ import annotations

import argparse

from seqdsl.cli.common import checked, console, escape, mark, print_json, programs, styled
from seqdsl.diagnostics import SeqError
from seqdsl.report import Finding, Report, report
from seqdsl.semantics.files import unused
from seqdsl.syntax import tree


def run(arguments: argparse.Namespace) -> int:
    """0 where nothing is refuted, else 1."""
    mixers = programs(arguments)
    reports = [report(system, test=not arguments.no_test) for system in checked(mixers)]
    idle = [] if arguments.mixer else unused(mixers[0].file)
    if arguments.json:
        names = [item.name.plain for item in idle]
        print_json({"ok": all(r.ok for r in reports), "mixers": [r.to_dict() for r in reports], "unused": names})
    else:
        for one in reports:
            show(one)
        for item in idle:
            kind = "fn" if isinstance(item, tree.Fn) else "monoid"
            console().print(f"{kind} {escape(item.name.plain)}: no mixer of this file uses it, so it is not checked")
    return 0 if all(r.ok for r in reports) else 1


def show(found: Report) -> None:
    """The report of one mixer."""
    out = console()
    header = ", ".join(f"{t.name}[{','.join(t.indices)}]" for t in found.system.inputs())
    out.print(f"{mark(found.system.name, 'bold')}({escape(header)})")
    for finding in found.findings:
        for line in _recurrence_lines(finding):
            out.print(line)
    if not found.findings:
        online = not isinstance(found.forms.get("chunkwise"), SeqError)
        out.print("  no recurrence: " + ("its normalisers can be read block by block" if online else "parallel as it stands"))
    for name, verdicts in found.monoids.items():
        out.print(f"  monoid {escape(name)}")
        for law, verdict in verdicts.items():
            out.print(f"    {escape(law)}: {styled(verdict)}")
    for claim, verdict in found.claims:
        out.print(f"  claim {escape(claim.text)}: {styled(verdict)}")
    out.print("  forms: " + escape(forms_line(found)))
    state = found.state if isinstance(found.state, str) else ", ".join(found.state) or "none"
    out.print(f"  state: {escape(state)}")
    for diagnostic in found.refuted():
        from seqdsl.diagnostics import render

        out.print(escape(render(diagnostic)))


def forms_line(found: Report) -> str:
    """The forms the mixer has, the planner's choice marked."""
    names = [n for n, c in found.forms.items() if not isinstance(c, SeqError)]
    return ", ".join(f"{n} (auto)" if n == found.chosen else n for n in names)


def _recurrence_lines(finding: Finding) -> list[str]:
    r = finding.recurrence
    way = "down" if r.reverse else "along"
    traits = [t for t, on in (("time-invariant", r.time_invariant), ("complex", r.complex)) if on]
    ring = "" if r.ring in ("+ *", "") else f" over ({r.ring.replace(' ', ', ')})"
    states = ", ".join(r.states)
    lines = [
        f"  recurrence {mark(states, 'bold')} {way} {r.axis}: {mark(r.kind, 'cyan')}{escape(ring)}"
        + (f" ({', '.join(traits)})" if traits else "")
    ]
    if r.evidence:
        lines.append(f"    {escape(r.evidence)}")
    lines += [f"    {escape(law)}: {styled(verdict)}" for law, verdict in finding.verdicts.items()]
    return lines
