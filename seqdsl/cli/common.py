"""What the commands share: the programs that a command line names, and text for terminals and for pipes."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from seqdsl import api
from seqdsl.algebra.verdict import Proved, Refuted, Tested, Verdict
from seqdsl.cli.main import settings
from seqdsl.diagnostics import Faults
from seqdsl.ir.system import System


def programs(arguments: argparse.Namespace) -> list[api.Program]:
    """The mixer asked for, or every mixer of the file."""
    options = settings(arguments.options)
    if arguments.mixer:
        return [api.load(arguments.file, arguments.mixer, **options)]
    found = api.load_all(arguments.file, **options)
    return found or [api.load(arguments.file)]  # raises: there is no mixer


def systems(arguments: argparse.Namespace) -> list[System]:
    """The checked equations of `programs`; the faults of all of them are reported together."""
    return checked(programs(arguments))


def checked(mixers: list[api.Program]) -> list[System]:
    """The equations of mixers; the faults of all of them are reported together."""
    faults, found = Faults(), list[System]()
    for program in mixers:
        with faults.kept():
            found.append(program.system())
    faults.check()
    return found


def is_terminal() -> bool:
    """Is standard output a terminal? Else text is plain, and rich is not loaded."""
    return sys.stdout.isatty()


class Plain:
    """What a console prints, as plain text."""

    def print(self, value: object = "") -> None:
        """One line; a rich table is rendered without colour."""
        if isinstance(value, str):
            sys.stdout.write(value + "\n")
        else:
            from rich.console import Console

            Console(highlight=False, width=160).print(value)


def console() -> Any:
    """A rich console on a terminal, plain text elsewhere."""
    if not is_terminal():
        return Plain()
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def escape(text: object) -> str:
    """User text, safe from markup."""
    if not is_terminal():
        return str(text)
    from rich.markup import escape as escaped

    return escaped(str(text))


def mark(text: object, style: str) -> str:
    """Text in a style, where there is one."""
    return f"[{style}]{escape(text)}[/]" if is_terminal() else str(text)


def print_json(value: object) -> None:
    """One JSON document."""
    json.dump(value, sys.stdout, indent=1, default=str)
    sys.stdout.write("\n")


def styled(verdict: Verdict) -> str:
    """A verdict's line, coloured by its kind."""
    colour = {Proved: "green", Tested: "yellow", Refuted: "red"}.get(type(verdict), "magenta")
    kind, colon, rest = verdict.describe().partition(":")
    return f"{mark(kind, colour)}{colon}{escape(rest)}"
