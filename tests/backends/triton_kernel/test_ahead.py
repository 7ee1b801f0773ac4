"""What the compiler makes of every kernel, ahead of time: registers, spills, shared memory, tensor-core products.

`resources.txt` is what this machine's Triton said of all targets when the kernels last changed: rewritten by
`python -m tests.backends.triton_kernel.ahead --table`. Here sm_90 is compiled again; `--deep` compiles all targets.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.backends.triton_kernel.ahead import OF_REGISTERS, SHARED, TABLE, TARGETS, report, rows

PRODUCTS = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "v_mfma"}


def _products(name: str, target: str) -> set[str]:
    """What a kernel must use: wgmma and its like want 64 rows and 4 warps; the blocks of the inverse have 32, and float32 2."""
    if name.startswith(("scan", "read ends", "read states", "read adjoint", "head sums")):
        return set()
    plain = (name.startswith("inverse") or "float32" in name) and target.startswith("sm")
    return {PRODUCTS["sm_80" if plain else target]}


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    return report(("sm_90",))


def test_the_default_configurations_fit_a_hopper_gpu(made: dict[str, dict[str, Any]]) -> None:
    assert not [name for name, row in made.items() if row["spilled"] and "float32" not in name]
    assert {name: row["shared"] for name, row in made.items() if row["shared"] > SHARED["sm_90"]} == {}


def test_matrix_states_use_tensor_cores(made: dict[str, dict[str, Any]]) -> None:
    assert not [name for name, row in made.items() if not _products(name, "sm_90") <= set(row["products"])]


def test_states_in_slabs_take_no_operand_of_a_product_from_registers(made: dict[str, dict[str, Any]]) -> None:
    """ptxas before 13.3 may give registers away that wgmma still reads; with more keys in one tile numbers were wrong."""
    slabs = [set(row["products"]) for name, row in made.items() if name.startswith(("solve 256", "solve 512"))]
    assert slabs and all(OF_REGISTERS not in products for products in slabs)
    assert made["solve 256 by head, float32 sm_90"]["products"] == ["mma.sync"]
    assert OF_REGISTERS in made["head adjoint sm_90"]["products"]


def test_the_table_has_every_kernel_on_every_target(made: dict[str, dict[str, Any]]) -> None:
    table = rows(TABLE.read_text(encoding="utf-8"))
    kernels = {name.rpartition(" ")[0] for name in made}
    assert set(table) == {f"{kernel} {target}" for kernel in kernels for target in TARGETS}
    for name, row in table.items():
        target = name.rpartition(" ")[2]
        assert row["shared"] <= SHARED[target], name
        assert _products(name, target) <= set(row["products"]), name


@pytest.mark.deep
def test_the_table_is_what_the_compiler_says() -> None:
    table = rows(TABLE.read_text(encoding="utf-8"))
    assert report(tuple(TARGETS)) == table
