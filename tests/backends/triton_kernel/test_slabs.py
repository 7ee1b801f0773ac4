"""States of more keys than one tile has: their kernel, and which keys it takes."""

from __future__ import annotations

from itertools import product

import pytest
import torch

import seqdsl
from backends.triton_kernel.support import solving
from seqdsl.api import load_backend
from tests.backends.triton_kernel.slabs import KINDS, MUTANTS, interpreted


@pytest.fixture(scope="module")
def agreed() -> dict[str, bool]:
    return interpreted()


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_is_right(kind: str, agreed: dict[str, bool]) -> None:
    assert agreed[kind]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_is_done_wrong_is_seen(mutant: str, agreed: dict[str, bool]) -> None:
    assert not agreed[mutant]


@pytest.mark.parametrize("dtype, keys", solving.SLABS_KEYS.items())
def test_so_many_keys_are_held_in_registers_and_no_more(
    dtype: torch.dtype, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    by_kernel: list[int] = []
    monkeypatch.setattr(solving, "_solve_launched", lambda given, *how: by_kernel.append(given[0].shape[-1]))
    for n in (keys, keys + 1):
        w, u, inverse = torch.randn(1, 20, 1, n) / n, torch.randn(1, 20, 1, n) / n, torch.eye(64)[:20].view(1, 20, 1, 64)
        given = [w.to(dtype), u.to(dtype), inverse.to(dtype), torch.randn(1, 20, 1, 3), -torch.rand(3 * 64), None, torch.float32]
        solving._solve_scan(*given, by_head=True, apart=1, before=False)
    assert by_kernel == [keys]


@pytest.mark.parametrize("dtype", solving.SLABS_KEYS)
def test_slabs_hold_all_keys_and_no_slab_is_empty(dtype: torch.dtype) -> None:
    for keys, reverse, hopper in product((129, 136, 192, 200, 256, 320, 512), (False, True), (False, True)):
        tile = solving._solve_tile(keys, 70, dtype, reverse, hopper, packed=False)
        assert tile["BK"] * (tile["SLABS"] - 1) < keys <= tile["BK"] * tile["SLABS"]


def test_it_is_said_where_the_state_is_in_slabs() -> None:
    system = seqdsl.load("delta_rule").derived("chunkwise").system
    said = (
        "kernels of `fused_solve_read`, the state in slabs of keys where there are more than 128, from chunk to chunk by"
        " PyTorch's products above 512 (256 in float32)"
    )
    assert said in load_backend("triton").explained(system, "chunkwise")
