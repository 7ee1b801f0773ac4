"""Every mixer of the library equals its reference and keeps its promises: claims, forms, a module that learns, a text that
reads as if it were written, its lines in the library's README.

All of this is in one file, and goes on mixer by mixer: its systems, forms and texts are made once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqdsl import api
from seqdsl.algebra import verdict
from seqdsl.cli.listing import OPENING, row_of
from seqdsl.ir.node import walk
from seqdsl.ir.ops import options
from seqdsl.verify.case import Case
from seqdsl.verify.suite import LONG, properties, try_property
from tests.backends.torch_module.readable import check_reads_well, lint
from tests.references.mixers import LIBRARY, Entry, every_mixer, programs

from .built import built, close, drawn

# Of `seqc test`, 25 examples of each property of the whole library are a matter of an hour: one part of it is tried on as
# many (`--shard`, which the plugin's `pytest library/` does without), of the rest the modules, on one of these cases, and on
# the longest: all forms of a third of them, and the one that is chosen of the others.
MANY = 25
CASES = (Case(6, 5, True), Case(1, 3, False), Case(17, 8, True), Case(2, 13, True), Case(9, 2, False))


@pytest.mark.parametrize("length", [1, 6, 19])
def test_the_equations_are_the_reference_s(entry: Entry, length: int) -> None:
    inputs, params, sizes, expected = drawn(entry, length)
    found = entry.program.interpret(inputs=inputs, params=params, sizes=sizes)["outputs"]
    for name in expected:
        close(found[name], expected[name], name)


def test_the_module_is_the_reference_s(entry: Entry) -> None:
    system, module, inputs, expected = built(entry, 37)
    result = module(*inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    for name, value in zip(system.outputs, outputs, strict=True):
        if name in expected:
            close(value.detach()[0], expected[name], name)


def test_claims_hold_and_the_readme_says_so(entry: Entry) -> None:
    program = entry.program
    found = program.check()
    assert found.ok, found.refuted()
    unclear = [(c.text, v.describe()) for c, v in found.claims if not isinstance(v, verdict.Proved | verdict.Tested)]
    assert not unclear, unclear
    readme = (LIBRARY / "README.md").read_text(encoding="utf-8").splitlines()
    assert row_of(program.file.name, program, found) in readme, "run: seqc list --markdown > library/README.md"


def test_the_readme_has_nothing_else() -> None:
    text = (LIBRARY / "README.md").read_text(encoding="utf-8")
    assert text.startswith(OPENING)
    assert sum(line.startswith("| ") and "`" in line for line in text.splitlines()) == len(every_mixer())
    files = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(files) == len(list(LIBRARY.glob("*/*.seq")))
    assert all(len(line.split(" | ")[-1].split()) > 5 for line in files)   # what it is, though it begins with imports


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*/*.seq")), ids=lambda path: path.stem)
def test_a_file_is_short(path: Path) -> None:
    """One system: an op, or the layers that are built from ops of other files."""
    assert 5 <= len(path.read_text(encoding="utf-8").splitlines()) <= 60


def test_every_form_keeps_to_the_equations(entry: Entry, pytestconfig: pytest.Config) -> None:
    program = entry.program
    part, parts = map(int, pytestconfig.getoption("--shard").split("/"))
    number = every_mixer().index((entry.file, program.name))
    among = number % parts == part - 1
    backend, system = api.load_backend("torch"), program.derived("recurrent").system

    def emit(derived: Any) -> tuple[str, str]:
        return program.source(derived.form), program.class_name

    every = among or number % 3 == 0
    for row in properties(system, emit, backend, forms=() if every else (program.derived("auto").form,)):
        if among:
            outcomes = [try_property(row, examples=MANY, seed=None)]
        elif row.of_module:
            cases = [CASES[number % len(CASES)], *([LONG[-1]] if row.long else [])]
            outcomes = [try_property(row, examples=1, seed=None, case=case) for case in cases]
        else:
            continue
        for outcome in outcomes:
            assert outcome.ok, (outcome.form, outcome.what, outcome.failure)


def test_a_layer_learns(entry: Entry) -> None:
    """A step down the gradient lowers a loss; what has no parameters lowers it by its inputs."""
    system, module, inputs, _ = built(entry, 9)
    terms = [n for t in system.derived() if t.rhs is not None for n in walk(t.rhs)]
    if any(options(n).get("grad") for n in terms):
        pytest.skip("its gradient is that of another function")
    moved = [p for p in module.parameters() if p.requires_grad]
    if not moved:
        inputs = [x.requires_grad_() if x.is_floating_point() or x.is_complex() else x for x in inputs]
        moved = [x for x in inputs if x.requires_grad]

    def loss() -> torch.Tensor:
        result = module(*inputs)
        outputs = result if isinstance(result, tuple) else (result,)
        parts = [((y - 0.3).abs() ** 2).mean() for y in outputs if y.is_floating_point() or y.is_complex()]
        return torch.stack(parts).sum() if parts else torch.zeros(())

    first = loss()
    gradients = torch.autograd.grad(first, moved, allow_unused=True) if first.requires_grad else []
    slope = sum((g.abs() ** 2).sum().item() for g in gradients if g is not None)
    assert np.isfinite(slope)
    if slope < 1e-20:
        pytest.skip("it counts, chooses, or keeps what it is given: nothing to learn")
    for step in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        with torch.no_grad():
            for p, g in zip(moved, gradients, strict=True):
                p.sub_(0 if g is None else step * g / slope**0.5)
            lower = loss() < first
            for p, g in zip(moved, gradients, strict=True):
                p.add_(0 if g is None else step * g / slope**0.5)
        if lower:
            return
    raise AssertionError(f"no step lowers the loss {first.item()}")


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the texts, each written when its mixer has its turn."""
    return tmp_path_factory.mktemp("texts")


def _written(entry: Entry, texts: Path) -> Path:
    path = texts / f"{entry.file}.{entry.program.name}.py".replace(".", "_", 2)
    if not path.is_file():
        path.write_text(entry.program.source(), encoding="utf-8")
    return path


def test_its_text_reads_as_if_written(entry: Entry, texts: Path) -> None:
    check_reads_well(_written(entry, texts).read_text(encoding="utf-8"))


def test_a_linter_finds_nothing_in_any_text(texts: Path) -> None:
    """Comes last (see `conftest`): then all are written."""
    for file, mixer in every_mixer():
        _written(Entry(file, programs(file)[mixer]), texts)
    assert lint(texts) == ""
