"""Which ptxas assembles for Hopper GPUs: one that keeps the registers of products until they are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from backends.triton_kernel.support import assembler  # noqa: E402


def fake(folder: Path, release: str, name: str = "ptxas") -> str:
    """A program that says it is a ptxas of this release."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """One that has no ptxas but those of its folder: `machine(own, *others)` chooses, and names what is taken then."""
    for name in ("TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH", "CUDA_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(assembler, "find_spec", lambda name: None)

    def chosen(own: str, newer: str) -> tuple[bool, str]:
        places = {"ptxas": fake(tmp_path, own, "own"), "ptxas_blackwell": fake(tmp_path, newer, "newer")}
        monkeypatch.setattr(assembler.triton.knobs, "nvidia", type("Knobs", (), {
            name: triton.knobs.NvidiaTool.from_path(path) for name, path in places.items()}))  # fmt: skip
        assembler._assembles_soundly.cache_clear()
        found = assembler._assembles_soundly()
        used = assembler.triton.knobs.nvidia.ptxas
        return found, Path(getattr(used, "path", used)).name

    yield chosen
    assembler._assembles_soundly.cache_clear()
    assembler._release.cache_clear()


def test_a_sound_one_stays(machine: Any) -> None:
    assert machine("13.3", "13.4") == (True, "own")


def test_releases_are_numbers_in_order(machine: Any) -> None:
    assert machine("13.10", "13.4") == (True, "own")


def test_the_newer_one_of_triton_takes_its_place(machine: Any) -> None:
    assert machine("12.9", "13.4") == (True, "newer")


def test_one_from_the_path_takes_its_place(machine: Any, tmp_path: Path) -> None:
    fake(tmp_path / "bin", "13.5")
    assert machine("12.8", "13.1") == (True, "ptxas")


def test_one_that_the_user_names_stays_and_is_said_to_be_unsound(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_PTXAS_PATH", "whatever")
    with pytest.warns(RuntimeWarning, match=r"ptxas 12\.8, with which Triton .* may give registers away"):
        assert machine("12.8", "13.4") == (False, "own")


def test_without_a_sound_one_products_are_those_of_ampere(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(RuntimeWarning, match="nvidia-cuda-nvcc"):
        assert machine("12.8", "13.1") == (False, "own")
    monkeypatch.setattr(assembler, "_is_hopper_device", lambda device: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setenv("DISABLE_MMA_V3", "0")
    with assembler._launching_on(torch.device("cuda")):
        assert os.environ["DISABLE_MMA_V3"] == "1"
    assert os.environ["DISABLE_MMA_V3"] == "0"


def test_what_triton_brings_here_is_sound() -> None:
    """Otherwise the kernels for Hopper GPUs that this suite compiles ahead of time are not those that run."""
    brought = (triton.knobs.nvidia.ptxas.path, triton.knobs.nvidia.ptxas_blackwell.path)
    assert max(map(assembler._release, brought)) >= assembler.SOUND
