"""`seqc check FILE`: classes, monoids, verdicts, forms."""

from __future__ import annotations

import argparse

from seqdsl.cli.common import checked, console, escape, mark, print_json, programs, styled
from seqdsl.report import Report, lines, report
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
    for line in lines(found, mark, escape, styled):
        out.print(line)
