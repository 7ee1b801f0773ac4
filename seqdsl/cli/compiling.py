"""`seqc compile FILE -o DIR`: one module a mixer, written only when it agrees with the equations."""

from __future__ import annotations

import argparse

from seqdsl import api
from seqdsl.cli.common import console, escape
from seqdsl.cli.main import settings


def run(arguments: argparse.Namespace) -> int:
    """0 when everything was written; validation failures are a `SeqError` and nothing is written."""
    paths = api.compiled(
        arguments.file,
        arguments.out,
        mixer=arguments.mixer,
        form=arguments.form,
        backend=arguments.backend,
        validate=not arguments.no_validate,
        **settings(arguments.options),
    )
    out = console()
    for path, tried in paths.items():
        lines = path.read_text(encoding="utf-8").count("\n")
        found = ", agrees with its equations" if tried else ", not compared with its equations: its sizes are too large"
        checked = "" if arguments.no_validate else found
        out.print(f"wrote {escape(str(path))} ({lines} lines{checked})")
    return 0
