"""`seqc list`: what the library holds."""

from __future__ import annotations

import argparse
from typing import Any

from seqdsl import api
from seqdsl.algebra import classify_all
from seqdsl.cli.common import console, print_json
from seqdsl.plan import choose
from seqdsl.semantics import library


def run(arguments: argparse.Namespace) -> int:
    """0"""
    rows = [_row(name, program) for name in sorted(library()) for program in api.load_all(name)]
    if arguments.json:
        print_json(rows)
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("file", "mixer", "recurrences", "auto form", "source"):
        table.add_column(column, overflow="fold" if column == "source" else "ellipsis")
    for row in rows:
        table.add_row(row["file"], row["mixer"], ", ".join(row["classes"]) or "-", row["auto"], row["doc"])
    console().print(table)
    return 0


def _row(name: str, program: api.Program) -> dict[str, Any]:
    system = program.system()
    doc = [str(line) for line in system.doc if str(line).strip()]
    classes = list(dict.fromkeys(r.kind for r in classify_all(system)))
    return {
        "file": name,
        "mixer": program.name,
        "classes": classes,
        "auto": choose(system).form,
        "doc": doc[0] if doc else "",
    }
