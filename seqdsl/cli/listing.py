"""`seqc list`: what the library holds; `--markdown` the same with verdicts, as the library's README."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqdsl import api
from seqdsl.algebra import classify_all
from seqdsl.algebra.verdict import Proved, Tested
from seqdsl.cli.common import console, print_json
from seqdsl.diagnostics import SeqError
from seqdsl.ir import build
from seqdsl.ir.state import NotSteppable, state_record
from seqdsl.ir.system import System
from seqdsl.plan import Cost, leading
from seqdsl.report import Report
from seqdsl.semantics import library, mixers
from seqdsl.syntax import tree

OPENING = """# The library

Written by `seqc list --markdown`; a test keeps it current. One file for each system: `seqc check NAME` shows the
derivation of every verdict, `seqc test NAME` compares every form with the equations.

*State* is what a mixer keeps between two positions, in numbers, sizes by their indices ("all so far": a cache that
grows; no state: it sees the future, or has no streamed axis). *Operations* are the leading terms of the form that
`auto` picks, which is **bold**. Claims are *proved* by algebra or *tested* on random inputs; the text of those that are
only tested is given.
"""
SO_FAR = "all so far"
COLUMNS = ("file", "mixer", "recurrences", "forms", "state", "operations", "claims", "what and whence")


def run(arguments: argparse.Namespace) -> int:
    """0"""
    if arguments.markdown:
        for line in markdown():
            sys.stdout.write(line + "\n")
        return 0
    rows = [_row(name, program) for name in sorted(library()) for program in api.load_all(name)]
    if arguments.json:
        print_json(rows)
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("file", "mixer", "recurrences", "source"):
        table.add_column(column, overflow="fold" if column == "source" else "ellipsis")
    for row in rows:
        table.add_row(row["file"], row["mixer"], ", ".join(row["classes"]) or "-", row["doc"])
    console().print(table)
    return 0


def _row(name: str, program: api.Program) -> dict[str, Any]:
    system = program.system()
    return {
        "file": name,
        "mixer": program.name,
        "classes": _classes(system),
        "doc": _doc(program),
    }


def _doc(program: api.Program) -> str:
    """The comments above the mixer; before them, for the first of a file, those that open the file."""
    opening = program.file.module.items[0]
    lines = program.mixer.doc
    if opening is not program.mixer and _is_first(program):
        lines = (opening.comments if isinstance(opening, tree.Import) else opening.doc) + lines
    return " ".join(line.strip() for line in lines if line.strip())


def _is_first(program: api.Program) -> bool:
    return program.mixer is mixers(program.file)[0]


def _classes(system: System) -> list[str]:
    return list(dict.fromkeys(r.kind for r in classify_all(system)))


def markdown() -> Iterator[str]:
    """The lines of the library's README: one table for each folder."""
    folders: dict[str, list[str]] = {}
    for name, path in sorted(library().items()):
        folders.setdefault(Path(str(path)).parent.name, []).append(name)
    yield from OPENING.rstrip("\n").split("\n")
    for folder, names in sorted(folders.items()):
        yield from ("", f"## {folder}", "", _line(COLUMNS), _line(["---"] * len(COLUMNS)))
        for name in names:
            yield from (row_of(name, program, program.check()) for program in api.load_all(name))


def row_of(name: str, program: api.Program, found: Report) -> str:
    """The line of a mixer; the first of a file names the file."""
    path = Path(str(library()[name]))
    return _line(
        [
            f"[{name}]({path.parent.name}/{name}.seq)" if _is_first(program) else "",
            f"`{found.system.name}`",
            ", ".join(_classes(found.system)) or "none",
            _forms(found),
            _state(found.system),
            _operations(found),
            _claims(found),
            _doc(program),
        ]
    )


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _forms(found: Report) -> str:
    names = [n for n, c in found.forms.items() if not isinstance(c, SeqError)]
    return ", ".join(f"**{n}**" if n == found.chosen else n for n in names)


def _operations(found: Report) -> str:
    cost = found.forms[found.chosen]
    return leading(cost.flops).replace("|", "") if isinstance(cost, Cost) else ""


def _state(system: System) -> str:
    """Each entry's size in numbers."""
    try:
        record = state_record(system)
    except NotSteppable:
        return "no state"
    sizes = []
    for entry in record:
        if not entry.tensor:
            continue
        others = [i for k, i in enumerate(system.tensors[entry.tensor].indices) if k != entry.position]
        counts = [SO_FAR for i in others if system.axis(i) == system.stream]
        if entry.tail is not build.ONE:
            counts.append(SO_FAR if entry.tail is None else f"({entry.tail!r})".replace("|", ""))
        rest = " ".join(i for i in others if system.axis(i) != system.stream) or "1"
        sizes.append(" x ".join([*counts, rest]))
    return " + ".join(f"{sizes.count(s)} x {s}" if sizes.count(s) > 1 else s for s in dict.fromkeys(sizes)) or "nothing"


def _claims(found: Report) -> str:
    proved = sum(isinstance(v, Proved) for _, v in found.claims)
    tested = [c.text for c, v in found.claims if isinstance(v, Tested)]
    open_ = [c.text for c, v in found.claims if not isinstance(v, Proved | Tested)]
    parts = [f"{proved} proved"] if proved else []
    parts += [f"{len(tested)} tested: " + "; ".join(f"`{t}`" for t in tested)] if tested else []
    parts += [f"{len(open_)} open: " + "; ".join(f"`{t}`" for t in open_)] if open_ else []
    return ", ".join(parts) or "none"
