"""`seqc test FILE`: every form against the equations, on inputs made to break them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from seqdsl import api
from seqdsl.cli.common import console, escape, is_terminal, mark, print_json, programs
from seqdsl.diagnostics import SeqError
from seqdsl.forms import DISTRIBUTED, FORMS, Derived, derive
from seqdsl.verify.case import Case, case_named
from seqdsl.verify.suite import Outcome, properties, reproduce, try_property


def run(arguments: argparse.Namespace) -> int:
    """0 when every property holds, else 1."""
    if arguments.examples < 1:
        raise SeqError("bad-setting", "`--examples` is at least 1")
    if arguments.seed is not None and arguments.seed < 0:
        raise SeqError("bad-setting", "`--seed` is at least 0")
    case = case_named(arguments.case) if arguments.case else None
    if arguments.case and case is None:
        raise SeqError(
            "bad-setting", f"`--case {arguments.case}` names no example", help="for example `--case 5:123:harsh`"
        )
    unknown = [f for f in arguments.form if f not in (*FORMS, DISTRIBUTED)]
    if unknown:
        raise SeqError("unknown-form", f"no form `{unknown[0]}` to test", help="forms: " + ", ".join([*FORMS, DISTRIBUTED]))
    results = {p.name: _outcomes(p, case, arguments) for p in programs(arguments)}
    if arguments.json:
        print_json({n: [o.to_dict() for o in os] for n, os in results.items()})
    return 0 if all(o.ok for os in results.values() for o in os) else 1


def _outcomes(program: api.Program, case: Case | None, arguments: argparse.Namespace) -> list[Outcome]:
    found: list[Outcome] = []
    out = console()
    if not arguments.json:
        out.print(mark(program.name, "bold"))
    with _progress(out, arguments) as bar:
        for outcome in _tried(program, case, arguments, bar):
            found.append(outcome)
            if not arguments.json:
                _show(bar.console if bar is not None else out, outcome, program.name, arguments)
    return found


def _tried(program: api.Program, case: Case | None, arguments: argparse.Namespace, bar: Any) -> Iterator[Outcome]:
    backend, system = api.load_backend("torch"), program.derived("recurrent").system
    for form in arguments.form:
        derive(system, form)  # raises: an explicit choice works or says why not

    def emit(derived: Derived) -> tuple[str, str]:
        return api.emit(derived.system, program.class_name, backend, form=derived.form), program.class_name

    task = bar.add_task(program.name, total=None) if bar is not None else None
    rows = list(properties(system, emit, backend, forms=tuple(arguments.form)))
    examples = arguments.examples * (20 if arguments.deep else 1)
    for done, row in enumerate(rows):
        if bar is not None:
            bar.update(task, total=len(rows), completed=done, description=f"{row.form}: {row.what}")
        yield try_property(row, examples=examples, seed=arguments.seed, case=case)


def _progress(out: Any, arguments: argparse.Namespace) -> AbstractContextManager[Any]:
    """A bar on a terminal; nothing where text goes to a file, or is JSON."""
    if arguments.json or not is_terminal():
        return nullcontext()
    from rich.progress import Progress

    return Progress(console=out, transient=True)


def _show(out: Any, outcome: Outcome, mixer: str, arguments: argparse.Namespace) -> None:
    kept = mark("ok", "green") if outcome.examples else mark("not tried", "yellow")
    result = kept if outcome.ok else mark("FAILED", "red")
    out.print(f"  {outcome.form:12} {outcome.what:34} {result} ({outcome.examples} examples)")
    if not outcome.ok:
        settings = "".join(f" --set {o}" for o in arguments.options)
        out.print(escape(f"    {outcome.failure}\n    again: {reproduce(arguments.file, mixer, outcome)}{settings}"))
