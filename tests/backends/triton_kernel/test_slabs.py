"""States of more keys than one tile has: the check of their kernel, what it sees, and what is done when it sees something."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
import torch

import seqdsl
from backends.triton_kernel.support import solving
from seqdsl.api import load_backend
from tests.backends.triton_kernel.slabs import KINDS, MUTANTS, interpreted

HOW = {"by_head": True, "apart": 1, "before": False}


@pytest.fixture(scope="module")
def agreed() -> dict[str, bool]:
    return interpreted()


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_is_right(kind: str, agreed: dict[str, bool]) -> None:
    assert agreed[kind]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_is_done_wrong_is_seen(mutant: str, agreed: dict[str, bool]) -> None:
    assert not agreed[mutant]


@dataclass
class Device:
    """What launches the kernel; of the states that it finds it gives `factor` times the right ones."""

    factor: float = 1.0
    lengths: list[int] = field(default_factory=list)  # of what was launched

    def launch(self, given: Any, like: torch.dtype, how: dict[str, Any], tile: dict[str, int]) -> Any:
        y, states, final = solving._solve_stepped(given, like, **how)
        self.lengths.append(given[0].shape[1])
        return y, states * self.factor, final


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    found = Device()
    monkeypatch.setattr(solving, "_solve_launched", found.launch)
    monkeypatch.setattr(solving, "_is_compiled", lambda x: True)
    solving._slabs_agree.cache_clear()
    yield found
    solving._slabs_agree.cache_clear()


def _given(keys: int) -> tuple[Any, ...]:
    torch.manual_seed(0)
    w, u, inverse = torch.randn(1, 20, 1, keys) / keys, torch.randn(1, 20, 1, keys) / keys, torch.eye(64)[:20].view(1, 20, 1, 64)
    return w, u, inverse, torch.randn(1, 20, 1, 3), -torch.rand(1, 20, 1), None, torch.float32


def _stepped(given: tuple[Any, ...]) -> Any:
    return solving._solve_stepped((*given[:6], None, None), given[6], BY_HEAD=True, APART=1, BEFORE=False, REVERSE=False)


def test_a_device_that_is_right_is_asked_once(device: Device) -> None:
    given = _given(136)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            solving._solve_scan(*given, **HOW)
    assert device.lengths == [141, 20, 20]


def test_a_device_that_is_wrong_is_told_of_and_not_asked_again(device: Device) -> None:
    device.factor = 1.05
    given = _given(136)
    with pytest.warns(RuntimeWarning, match="cpu with Triton .* computes feedback of 136 keys wrongly: PyTorch's products"):
        found = solving._solve_scan(*given, **HOW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = solving._solve_scan(*given, **HOW)
    assert device.lengths == [141]
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(_stepped(given), found, again, strict=True))


def test_nothing_that_is_no_number_passes(device: Device) -> None:
    device.factor = torch.nan
    with pytest.warns(RuntimeWarning):
        assert solving._solve_scan(*_given(136), **HOW)[1].isfinite().all()


def test_one_tile_is_not_checked(device: Device) -> None:
    solving._solve_scan(*_given(128), **HOW)
    assert device.lengths == [20]


@pytest.mark.parametrize("dtype, keys", solving.SLABS_KEYS.items())
def test_so_many_keys_are_held_in_registers_and_no_more(dtype: torch.dtype, keys: int, device: Device) -> None:
    for extra in (0, 1):
        w, u, inverse, *rest, like = _given(keys + extra)
        solving._solve_scan(w.to(dtype), u.to(dtype), inverse.to(dtype), *rest, like, **HOW)
    assert device.lengths == [141, 20]


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
