"""The adjoints that support functions carry, written by hand, against the one that is derived of the equations.

A module in a form sends gradients back by them; `forms.adjoint` knows no form, and is run by the interpreter. So each is a
checked implementation of the derived graph, in the module of a recurrence that has it, over more than a chunk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from seqdsl.backends import torch_module

from seqdsl.forms import derive
from tests.forms.available import forms_of
from tests.forms.gradients import worst_gap
from tests.ir.corpus import ROOT, systems_of

SUPPORT = ROOT / "backends" / "torch_module" / "support"
UNNAMED = sorted((ROOT / "tests" / "unnamed").glob("*.seq"))
LENGTH = 70  # a chunk is of 64

# Each class with a backward of its own, and a module that has it.
WHERE = {
    "_AffineScan": ("tests/unnamed/along_depth", "scan"),
    "_ChunkLinearAttention": ("tests/unnamed/four_axes", "chunkwise"),
    "_ChunkSolve": ("tests/unnamed/rank_three", "chunkwise"),
    "_ChunkSolveRead": ("tests/unnamed/reflection", "chunkwise"),
    "_ComplexExp": ("tests/unnamed/turning_decay", "chunkwise"),
    "_DecayApply": ("tests/unnamed/column_decay", "chunkwise"),
    "_DecayGram": ("tests/unnamed/exclusive_bonus", "chunkwise"),
    "_DotProductAttention": ("library/attention/softmax", "chunkwise"),
    "_FftConv": ("tests/unnamed/two_poles", "convolution"),
    "_GridScan": ("library/rnn/plstm_2d", "hierarchical"),
    "_Levels": ("tests/unnamed/watershed", "wavefront"),
    "_MatrixScan": ("tests/unnamed/coupled_erase", "scan"),
    "_NewtonScan": ("tests/unnamed/two_species", "newton"),
    "_OnlineSoftmaxFunction": ("library/attention/softcap", "chunkwise"),
    "_RepeatedProduct": ("library/scan/s4", "convolution"),
    "_SegmentProducts": ("tests/unnamed/vector_rank_one", "chunkwise"),
    "_SegmentedRead": ("tests/unnamed/two_sided_decay", "chunkwise"),
    "_Stepped": ("library/rnn/lstm", "recurrent"),
    "_WavefrontOrder": ("tests/unnamed/deep_cells", "wavefront"),
}


def test_every_written_adjoint_is_listed() -> None:
    found = {c for p in SUPPORT.glob("*.py") for c in re.findall(r"class (_\w+)\(torch\.autograd\.Function", p.read_text())}
    assert found == set(WHERE)


@pytest.mark.parametrize("name", WHERE)
def test_a_written_adjoint_is_the_derived_one(name: str) -> None:
    file, form = WHERE[name]
    system = systems_of(ROOT / f"{file}.seq")[0]
    code = torch_module.emit_module(derive(system, form).system, class_name="M", form=form)
    assert f"class {name}(" in code
    for stream in (0, 1, LENGTH):
        gap, where = worst_gap(system, stream=stream, module_form=form, harsh=stream == LENGTH)
        assert 0 <= gap < 1e-8, f"|t| = {stream}: {where}"


@pytest.mark.parametrize("path", UNNAMED, ids=lambda p: p.stem)
def test_recurrences_that_nobody_named(path: Path) -> None:
    for system in systems_of(path):
        for form in forms_of(system):
            gap, where = worst_gap(system, stream=LENGTH, module_form=form)
            assert 0 <= gap < 1e-8, f"{system.name}, {form}: {where}"
