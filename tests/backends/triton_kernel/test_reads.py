"""Kernels that were written for the scores of one equation: numerics under Triton's interpreter, and what compilers say.

`reads.txt` is what this machine's Triton said of all targets when the kernels last changed: rewritten by
`python -m tests.backends.triton_kernel.reads --table`. Here sm_90 is compiled again; `--deep` compiles all targets.
"""

from __future__ import annotations

from typing import Any

import pytest

import seqdsl
from seqdsl.api import load_backend
from tests.backends.triton_kernel.ahead import SHARED, check_fit, rows
from tests.backends.triton_kernel.reads import HALVES, MODULES, READS, TABLE, TABLES, compiled_report, interpreted

TOLERANCE = {"float32": 2e-6, "float16": 1e-3}
NAMES = [f"{name}, {dtype}" for name in READS for dtype in (TOLERANCE if name in HALVES else ("float32",))]
PRODUCTS = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "v_mfma"}


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    return interpreted()


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name]
    assert all(e < TOLERANCE[name.rpartition(", ")[2]] for e in errors[name]), errors[name]  # NaN is not less


@pytest.mark.parametrize("name", MODULES)
def test_pieces_with_states_and_packed_sequences(name: str, errors: dict[str, list[float]]) -> None:
    assert all(e < TOLERANCE["float32"] for e in errors[f"{name}, in pieces"]), errors


@pytest.mark.parametrize("name", MODULES)
def test_operators_are_what_compilers_expect(name: str, errors: dict[str, list[float]]) -> None:
    found = errors[f"{name}, its operator"]
    assert found and not any(found)


NARROW = "a bias for each pair 256 columns"  # 32 of them: wgmma wants 64, which spill


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    return compiled_report(("sm_90",))


def test_the_default_tiles_fit_a_hopper_gpu(made: dict[str, dict[str, Any]]) -> None:
    check_fit(made)
    assert [name for name, row in made.items() if PRODUCTS["sm_90"] not in row["products"]] == [f"{NARROW} sm_90"]


def test_the_table_has_every_kernel_on_every_target(made: dict[str, dict[str, Any]]) -> None:
    table = rows(TABLE.read_text(encoding="utf-8"))
    assert set(table) == {f"{name.rpartition(' ')[0]} {target}" for name in made for target in TABLES}
    for name, row in table.items():
        target = name.rpartition(" ")[2]
        product = PRODUCTS["sm_80" if name.startswith(NARROW) and target.startswith("sm_") else target]
        assert row["shared"] <= SHARED[target] and product in row["products"], name


@pytest.mark.deep
def test_the_table_is_what_the_compiler_says() -> None:
    assert compiled_report(tuple(TABLES)) == rows(TABLE.read_text(encoding="utf-8"))


def test_what_ties_rows_to_columns_otherwise_stays_in_pytorch() -> None:
    source = ("mixer additive(q[t,h,d], k[t,h,d], w[h,d], v[t,h,e]) -> o[t,h,e]:\n    index s over t\n"
              "    o[t,h,e] = sum[s | s <= t] softmax[s | s <= t](sum[d] w * tanh(q[t] + k[s])) * v[s]\n")
    text = seqdsl.load(source).source(backend="triton")
    assert "import triton" not in text and "online_softmax(" in text
    system = seqdsl.load(source).derived("chunkwise").system
    assert load_backend("triton").explained(system, "chunkwise")[0] == (
        "`o` is read block by block in PyTorch: `sum` of both indices"
    )


def test_a_learned_table_is_said_to_need_pytorch_for_its_gradient() -> None:
    source = READS["a table by distance"].source.replace("pos[m,h]: int", "pos[m,h]")
    found = load_backend("triton").explained(seqdsl.load(source).derived("chunkwise").system, "chunkwise")
    assert found[1:2] == ["`o` is read in PyTorch where the table `pos` needs a gradient"]


def test_it_is_said_what_has_kernels() -> None:
    system = READS["causal"].program().derived("chunkwise").system
    assert load_backend("triton").explained(system, "chunkwise")[:1] == ["kernels written for the scores of `o`"]
    assert load_backend("torch").explained(system, "chunkwise") == []


def test_bounds_come_from_the_guard() -> None:
    text = seqdsl.load(READS["window"].source).source(backend="triton")
    kernel = text[text.index("def _o_softmax_kernel") :]
    assert "begin = tl.maximum(0, first_row" in kernel and "end = tl.minimum(S, last_row" in kernel
    apart = seqdsl.load(READS["every third"].source).source(backend="triton")
    assert "end = tl.minimum(S, last_row" in apart and "whole_end" not in apart[apart.index("def _o_softmax_kernel") :]
