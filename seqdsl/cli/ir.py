"""`seqc ir FILE --after PASS`: the systems of a file as text; `seqc ir -` reads them back, checks them and prints them again."""

from __future__ import annotations

import argparse
import sys

from seqdsl.cli.common import systems
from seqdsl.forms import derive
from seqdsl.forms.adjoint import adjoint
from seqdsl.ir.text import print_system, read_systems
from seqdsl.ir.validate import validate


def run(arguments: argparse.Namespace) -> int:
    """0; errors are a `SeqError`."""
    if arguments.file == "-":
        found = read_systems(sys.stdin.read())
        for system in found:
            validate(system)
    else:
        found = systems(arguments)
    for system in found:
        if arguments.after == "adjoint":
            system = adjoint(system)
        elif arguments.after != "lower":
            system = derive(system, arguments.after).system
        validate(system)
        sys.stdout.write(print_system(system))
    return 0
