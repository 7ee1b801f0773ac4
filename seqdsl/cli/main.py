"""The command line: one row for each command, its options, and what its exit status means.

Architecture invariant: a command imports what it needs when it runs; `seqc check` never loads torch. Nothing of the compiler
is imported before `main` runs, which is what answers an interrupt.
"""

from __future__ import annotations

import argparse
import gc
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module

from seqdsl.config import VERSION

COMMANDS = {  # name -> (one line, example)
    "check": ("what each recurrence is, what is proved, tested or refuted", "seqc check gla"),
    "explain": ("the derivation of a mixer's forms, or the long form of an error code", "seqc explain gla"),
    "compile": ("write PyTorch modules, validated against the equations", "seqc compile gla -o out/"),
    "test": ("property-based equivalence of every form", "seqc test gla --examples 50"),
    "ir": ("the system of equations as text that reads back", "seqc ir gla --after chunkwise"),
    "list": ("the mixers of the library", "seqc list"),
    "fmt": ("rewrite a file in the canonical layout", "seqc fmt my_mixer.seq"),
    "bench": ("time every form, against a loop over time", "seqc bench simple_gla"),
}


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="seqc",
        description="A compiler for token mixers, from equations.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"seqc {VERSION}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (line, example) in COMMANDS.items():
        sub = commands.add_parser(name, help=line, description=line, epilog=f"example:  {example}")
        _OPTIONS[name](sub)
    return top


def _file(sub: argparse.ArgumentParser, what: str = "a .seq file, or a name of the library") -> None:
    sub.add_argument("file", metavar="FILE", help=what)
    sub.add_argument("--mixer", help="one mixer of the file (default: all of them)")
    sub.add_argument(
        "--set",
        dest="options",
        action="append",
        default=[],
        metavar="NAME=N",
        help="a value for an option that decides which equations there are",
    )


def _json(sub: argparse._ActionsContainer) -> None:
    sub.add_argument("--json", action="store_true", help="plain data on standard output")


def _check(sub: argparse.ArgumentParser) -> None:
    _file(sub)
    _json(sub)
    sub.add_argument("--no-test", action="store_true", help="algebra only: leave open what it cannot tell")


def _explain(sub: argparse.ArgumentParser) -> None:
    _file(sub, "a .seq file, a name of the library, or an error code")
    _json(sub)
    sub.add_argument("--backend", default="torch", help="triton: of every form what runs in kernels, and what each launch moves")


def _compile(sub: argparse.ArgumentParser) -> None:
    _file(sub)
    sub.add_argument("-o", "--out", default=".", metavar="DIR", help="the folder to write to (default: this one)")
    sub.add_argument("--form", default="auto", help="auto (default); one that `seqc check FILE` lists; or distributed")
    sub.add_argument("--backend", default="torch", help="torch, or triton: kernels for GPUs, in a second file")
    sub.add_argument("--no-validate", action="store_true", help="write without comparing with the equations first")


def _test(sub: argparse.ArgumentParser) -> None:
    _file(sub)
    _json(sub)
    sub.add_argument("--examples", type=int, default=20, metavar="N", help="examples for each property (default: 20)")
    sub.add_argument("--seed", type=int, help="another sequence of examples; without it the same each time")
    sub.add_argument("--deep", action="store_true", help="twenty times as many examples")
    sub.add_argument("--form", action="append", default=[], metavar="FORM", help="only this form (may be repeated)")
    sub.add_argument("--case", metavar="CASE", help="only this example, as a failure names it: 5:123 or 5:123:harsh")


def _ir(sub: argparse.ArgumentParser) -> None:
    _file(sub, "a .seq file, a name of the library, or - for a system on standard input")
    sub.add_argument("--after", default="lower", metavar="PASS", help="lower (default), adjoint, or a form: scan, chunkwise, ..")


def _list(sub: argparse.ArgumentParser) -> None:
    one = sub.add_mutually_exclusive_group()
    _json(one)
    one.add_argument("--markdown", action="store_true", help="with forms, costs and verdicts, as library/README.md has it")


def _fmt(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("files", nargs="+", metavar="FILE", help=".seq files")
    one = sub.add_mutually_exclusive_group()
    one.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is not in the layout")
    one.add_argument("--stdout", action="store_true", help="print instead of writing")


def _bench(sub: argparse.ArgumentParser) -> None:
    _file(sub)
    _json(sub)
    sub.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    sub.add_argument("--length", type=int, default=2048, metavar="T", help="sequence length (default: 2048)")


_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "check": _check,
    "explain": _explain,
    "compile": _compile,
    "test": _test,
    "ir": _ir,
    "list": _list,
    "fmt": _fmt,
    "bench": _bench,
}


def settings(pairs: Sequence[str]) -> dict[str, int]:
    """`--set NAME=N` as a dictionary. Errors: `bad-setting`."""
    from seqdsl.diagnostics import SeqError

    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.isidentifier() or not value.isascii() or not value.isdigit() or len(value) > 12:
            raise SeqError("bad-setting", f"`--set {pair}` is not NAME=N", help="for example `--set L=4`")
        found[name] = int(value)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    for name in ("stdin", "stdout", "stderr"):  # closed by who called: `seqc check gla >&-`
        setattr(sys, name, getattr(sys, name) or io.StringIO())
    arguments = parser().parse_args(argv)
    if argv is None:  # a process of our own: terms are many, without cycles, and live as long as it does
        gc.set_threshold(100_000)
    try:
        command = import_module(f"seqdsl.cli.{_MODULES.get(arguments.command, arguments.command)}")
        status = int(command.run(arguments))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except (OSError, MemoryError) as error:  # the machine's, not the compiler's: a full disk, sizes beyond memory
        print(f"seqc {arguments.command}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 2
    except Exception as error:
        return _failed(error, arguments)


def _failed(error: Exception, arguments: argparse.Namespace) -> int:
    """Print a user's mistake, or a bug, and where it is in the compiler's terms; returns the exit status."""
    from seqdsl.diagnostics import SeqError
    from seqdsl.ir.sizes import SizeError

    if isinstance(error, SizeError):
        from seqdsl.api import size_error

        error = size_error(error)
    if isinstance(error, SeqError):
        if getattr(arguments, "json", False):
            import json

            print(json.dumps({"ok": False, "errors": [d.to_dict() for d in error.diagnostics]}))
        else:
            print(error, file=sys.stderr)
        return 2
    last = traceback.extract_tb(error.__traceback__)[-1]
    print(
        f"internal error in `seqc {arguments.command}`: {type(error).__name__}: {error}\n"
        f"  at {last.filename.rsplit('seqdsl', 1)[-1].lstrip('/')}:{last.lineno}, in {last.name}\n"
        "  this is a bug of seqdsl, not of your file; please report it with the file",
        file=sys.stderr,
    )
    return 3


_MODULES = {"list": "listing", "compile": "compiling", "test": "testing"}
