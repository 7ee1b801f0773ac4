"""Kernels that were written for affine recurrences: numerics under Triton's interpreter, and what compilers say.

`scans.txt` is what this machine's Triton said of all targets when the kernels last changed: rewritten by
`python -m tests.backends.triton_kernel.scans --table`. Here some are compiled again for sm_90; `--deep` compiles all targets.
"""

from __future__ import annotations

from typing import Any

import pytest

import seqdsl
from seqdsl.api import load_backend
from tests.backends.triton_kernel.ahead import TARGETS, check_fit, rows
from tests.backends.triton_kernel.processes import each
from tests.backends.triton_kernel.scans import (
    DEEP,
    GATED,
    MODULES,
    MUTANTS,
    PACKED,
    PACKED_MUTANTS,
    PRECISIONS,
    TABLE,
    WALKS,
    compiled_report,
    interpreted,
)

TOLERANCE = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2}
NAMES = [f"{name}, {dtype}" for name in WALKS for dtype in PRECISIONS.get(name, ("float32",))]


@pytest.fixture(scope="module")
def errors(request: pytest.FixtureRequest) -> dict[str, list[float]]:
    return interpreted(bool(request.config.getoption("--deep")))


@pytest.mark.parametrize("name", each(NAMES, DEEP))
def test_values_states_and_gradients(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name]
    assert all(e < TOLERANCE[name.rpartition(", ")[2]] for e in errors[name]), errors[name]  # NaN is not less


@pytest.mark.parametrize("name", each(WALKS, DEEP))
def test_values_are_those_of_the_equations(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[f"{name}, literally"][0] < 2e-6


@pytest.mark.parametrize("name", MODULES)
def test_pieces_with_states_and_nothing(name: str, errors: dict[str, list[float]]) -> None:
    assert all(e < TOLERANCE["float32"] for e in errors[f"{name}, in pieces"]), errors


@pytest.mark.parametrize("name", each([*PACKED, "packed gates, one position", "packed gates, no position"], DEEP))
def test_packed_sequences_are_as_if_each_stood_alone(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name] and all(e < TOLERANCE["float32"] for e in errors[name]), errors[name]


@pytest.mark.deep
def test_the_operator_is_what_compilers_expect(errors: dict[str, list[float]]) -> None:
    found = errors["gates, its operator"]
    assert found and not any(found)


def test_of_states_only_what_enters_chunks_is_kept(errors: dict[str, list[float]]) -> None:
    assert 0 < errors["gates in pieces, what is kept"][0] < 0.05


@pytest.mark.parametrize("name", each([*MUTANTS, *PACKED_MUTANTS], DEEP))
def test_what_is_done_wrong_is_seen(name: str, errors: dict[str, list[float]]) -> None:
    assert not all(e < 1e-3 for e in errors[name]), errors[name]


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    return compiled_report(("sm_90",), ("gates",))


FEW = 16  # bytes that ptxas gives up for more warps side by side


def test_the_kernels_fit_a_hopper_gpu(made: dict[str, dict[str, Any]]) -> None:
    check_fit({name: {**row, "spilled": max(row["spilled"] - FEW, 0)} for name, row in made.items()})


def test_the_table_has_every_kernel_on_every_target(made: dict[str, dict[str, Any]]) -> None:
    table = rows(TABLE.read_text(encoding="utf-8"))
    assert set(table) >= {f"{name.rpartition(' ')[0]} {target}" for name in made for target in TARGETS}
    assert all(row["spilled"] <= FEW and row["shared"] < 10_000 for row in table.values())


@pytest.mark.deep
def test_the_table_is_what_the_compiler_says() -> None:
    assert compiled_report(tuple(TARGETS)) == rows(TABLE.read_text(encoding="utf-8"))


def explained(source: str, mixer: str | None = None) -> list[str]:
    derived = seqdsl.load(source, mixer).derived("auto")
    return list(load_backend("triton").explained(derived.system, "auto"))


def test_it_is_said_what_has_kernels() -> None:
    assert explained(GATED)[0] == (
        "kernels written for the scan of `S` and its coefficients, with `o`: they read each operand once, and keep of `S` what"
        " enters each chunk of positions"
    )


def test_bare_tensors_that_nothing_reads_entry_by_entry_stay_with_the_scan_that_is_there() -> None:
    source = "mixer bare(a[t,c], x[t,c]) -> y[t,c]:\n    y[t,c] = a * y[t-1] + x\n"
    assert explained(source)[0] == "kernels of `fused_scan`"


def test_a_state_that_a_sum_reads_is_in_memory() -> None:
    source = GATED.replace("-> o[t,c]", "-> o[t,c], m[t]") + "    m[t] = sum[c] x * S\n"
    found = [line for line in explained(source) if "the scan of `S`" in line]
    assert found and all("keep of `S`" not in line for line in found)
