"""`seqc test FILE`: every form against the equations, on inputs made to break them."""

from __future__ import annotations

import argparse

from seqdsl import api
from seqdsl.cli.common import console, escape, mark, print_json, programs
from seqdsl.diagnostics import SeqError
from seqdsl.forms import Derived
from seqdsl.verify.suite import Outcome, run_suite


def run(arguments: argparse.Namespace) -> int:
    """0 when every property holds, else 1."""
    if arguments.examples < 1:
        raise SeqError("bad-setting", "`--examples` is at least 1")
    examples = arguments.examples * (20 if arguments.deep else 1)
    results = {p.name: _outcomes(p, examples, arguments) for p in programs(arguments)}
    if arguments.json:
        print_json({n: [o.to_dict() for o in os] for n, os in results.items()})
    return 0 if all(o.ok for os in results.values() for o in os) else 1


def _outcomes(program: api.Program, examples: int, arguments: argparse.Namespace) -> list[Outcome]:
    backend = api.load_backend("torch")

    def emit(derived: Derived) -> tuple[str, str]:
        return api.emit(derived.system, program.class_name, backend, form=derived.form), program.class_name

    out = console()
    found = []
    if not arguments.json:
        out.print(mark(program.name, "bold"))
    for outcome in run_suite(program.derived("recurrent").system, emit, backend, examples=examples, seed=arguments.seed):
        found.append(outcome)
        if not arguments.json:
            result = mark("ok", "green") if outcome.ok else mark("FAILED", "red")
            out.print(f"  {outcome.form:12} {outcome.what:32} {result} ({outcome.examples} examples)")
            if not outcome.ok:
                out.print(
                    escape(
                        f"    {outcome.failure}\n    again: seqc test {arguments.file} --mixer {program.name}"
                        + (f" --seed {arguments.seed}" if arguments.seed is not None else "")
                    )
                )
    return found
