"""The pytest plugin: `pytest library/` tests every `.seq` file below the folder, an item for each form and each claim.

    pytest library/                       # a folder, or a file, named on the command line
    pytest library/ --seq-examples 50 --seq-seed 3
    seq_files = true                      # in the ini file: collect `.seq` files wherever pytest looks

A `.seq` file is collected only where it is asked for: by its own path, by the path of a folder (not the root of the
project, and not where Python tests or a conftest stand beside it or between: it is their material then), or by the ini
option. So a project that merely has seqdsl installed sees no difference.

Architecture invariant: nothing of seqdsl is loaded before a `.seq` file is collected. It stands above `verify`, as
`cli` does: it is another face of `seqc check` and `seqc test`, and says what they say.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the plugin."""
    group = parser.getgroup("seqdsl", "token mixers in .seq files")
    group.addoption(
        "--seq-examples", type=int, default=10, metavar="N", help="examples for each property (default: 10)"
    )
    group.addoption("--seq-seed", type=int, default=None, metavar="S", help="another sequence of examples")
    parser.addini("seq_files", "collect .seq files wherever pytest looks", type="bool", default=False)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A `.seq` file that was asked for."""
    if file_path.suffix != ".seq" or not (parent.config.getini("seq_files") or _asked(file_path, parent.config)):
        return None
    return SeqFile.from_parent(parent, path=file_path)


def _asked(path: Path, config: pytest.Config) -> bool:
    for argument in config.invocation_params.args:
        named = (config.invocation_params.dir / str(argument).partition("::")[0]).resolve()
        if named == path:
            return True
        if named.is_dir() and named != config.rootpath and path.is_relative_to(named):
            between = [p for p in path.parents if p.is_relative_to(named)]
            return not any((p / "conftest.py").is_file() or any(p.glob("test_*.py")) for p in between)
    return False


class Failed(Exception):
    """Something does not hold; the text says what."""


class SeqFile(pytest.File):
    """A file of mixers."""

    def collect(self) -> Iterator[pytest.Item]:
        """Each mixer's forms and claims. A user's error in the file is the file's own failure."""
        from seqdsl import api
        from seqdsl.diagnostics import SeqError
        from seqdsl.forms import available

        try:
            programs = [(program, program.derived("recurrent").system) for program in api.load_all(self.path)]
        except SeqError as error:
            raise self.CollectError(str(error)) from None
        for program, system in programs:
            for form, found in available(system).items():
                if not isinstance(found, SeqError):
                    yield FormItem.from_parent(self, name=f"{program.name}[{form}]", program=program, form=form)
            for claim in program.system().claims:
                yield ClaimItem.from_parent(self, name=f"{program.name}[{claim.text}]", program=program, claim=claim)


class _Item(pytest.Item):
    """What the items share: a mixer of a file, and how a failure is shown."""

    def __init__(self, *, program: Any, **rest: Any) -> None:
        super().__init__(**rest)
        self.program = program
        self.add_marker("seq")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What does not hold, without a traceback; another exception is a bug, and shown as one."""
        from seqdsl.diagnostics import SeqError

        if isinstance(excinfo.value, Failed | SeqError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the mixer stands."""
        return self.path, None, self.name


class FormItem(_Item):
    """Every property of one form of one mixer, as `seqc test --form` tries them."""

    def __init__(self, *, form: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.form = form

    def runtest(self) -> None:
        """Fails with all that does not hold, and the commands that show it again."""
        from seqdsl import api
        from seqdsl.verify.suite import reproduce, run_suite

        program, backend = self.program, api.load_backend("torch")

        def emit(derived: Any) -> tuple[str, str]:
            return api.emit(derived.system, program.class_name, backend, form=derived.form), program.class_name

        examples, seed = self.config.getoption("--seq-examples"), self.config.getoption("--seq-seed")
        system = program.derived("recurrent").system
        failures = [
            f"{o.what}: {o.failure}\n    again: {reproduce(str(self.path), program.name, o)}"
            for o in run_suite(system, emit, backend, examples=examples, seed=seed, forms=(self.form,))
            if not o.ok
        ]
        if failures:
            raise Failed("\n".join(failures))


class ClaimItem(_Item):
    """One claim, as `seqc check` decides it."""

    def __init__(self, *, claim: Any, **rest: Any) -> None:
        super().__init__(**rest)
        self.claim = claim

    def runtest(self) -> None:
        """Fails where the claim is refuted; skipped where it can be neither proved nor tried."""
        from seqdsl.algebra.verdict import Refuted, Unknown
        from seqdsl.report import verdict_of

        verdict = verdict_of(self.program.system(), self.claim)
        if isinstance(verdict, Refuted):
            raise Failed(f"claim {self.claim.text}: {verdict.describe()}")
        if isinstance(verdict, Unknown):
            pytest.skip(verdict.describe())


def pytest_configure(config: pytest.Config) -> None:
    """The marker of every item of a `.seq` file."""
    config.addinivalue_line("markers", "seq: a form or a claim of a mixer in a .seq file")
