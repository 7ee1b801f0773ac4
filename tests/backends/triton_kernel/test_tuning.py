"""Tiles that are timed and kept: a timer that is told what to say, and files that are damaged, locked and written at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from backends.triton_kernel.support import tuning

TILE = {"C": 64, "PRECISION": "ieee", "BK": 32, "BV": 64, "num_warps": 4}
X = torch.zeros(2, 3)
KEY = "states torch.float32 128 64"
BEST = {"BK": 32, "BV": 128, "num_warps": 4}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tuning._kept.cache_clear()
    yield tmp_path
    tuning._kept.cache_clear()


def _launch(time: int = 100) -> dict[str, Any]:
    return tuning._tuned("states", TILE, X, time, 64)


def _seconds(run: Any) -> float:
    """What the fake device takes: wide values are fast, many warps are slow."""
    tile = _launch()
    return 64 / tile["BV"] + tile["num_warps"] / 100 + (tile["BK"] != 32)


def _tuning() -> dict[str, Any]:
    return tuning.tune(lambda: (_launch(), torch.ones(3))[1], _seconds)


def _forget() -> None:
    """As in a new process."""
    tuning._kept.cache_clear()


def test_nothing_is_timed_and_nothing_is_written_unasked(folder: Path) -> None:
    assert _launch() is TILE and list(folder.iterdir()) == []


def test_the_fastest_is_kept_for_its_bucket(folder: Path) -> None:
    assert _tuning() == {KEY: BEST}
    for _ in range(2):
        assert _launch() == _launch(65) == _launch(128) == {**TILE, "BV": 128}
        assert _launch(64) == _launch(129) == TILE
        _forget()
    assert json.loads(tuning._place().read_text()) == {"cpu": {KEY: BEST}}
    assert [p.name for p in (folder / "seqdsl").iterdir()] == ["seqdsl.json"]


def test_another_kernel_dtype_and_device_have_their_own() -> None:
    _tuning()
    assert tuning._tuned("reads", TILE, X, 100, 64) == tuning._tuned("states", TILE, X.half(), 100, 64) == TILE
    assert tuning._tuned("states", TILE, X.to("meta"), 100, 64) == TILE


def test_what_is_wrong_or_does_not_fit_is_not_kept() -> None:
    def run() -> torch.Tensor:
        tile = _launch()
        if tile["BV"] == 128:
            raise RuntimeError("out of resources")
        return torch.ones(3) * (1.0 if tile["BK"] == 32 else 2.0)

    def seconds(run: Any) -> float:
        return 32 / _launch()["BK"]

    assert tuning.tune(run, seconds) == {} and _launch() == TILE


def test_a_tuning_that_fails_leaves_nothing_behind() -> None:
    with pytest.raises(ZeroDivisionError):
        tuning.tune(lambda: 1 / 0, _seconds)
    assert _launch() is TILE and _tuning() == {KEY: BEST}


WRONG = ("3", '{"BV": "64"}', '{"BV": 48}', '{"BV": 4096}', '{"BV": true}', '{"C": 32}', '{"BT": 64}')


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "\xff\x00", '{"cpu": 3}', *(f'{{"cpu": {{"KEY": {tile}}}}}' for tile in WRONG)]
)
def test_a_damaged_file_is_none(text: str, folder: Path) -> None:
    tuning._place().parent.mkdir()
    tuning._place().write_bytes(text.replace("KEY", KEY).encode("latin-1"))
    assert _launch() == TILE
    assert _tuning() == {KEY: BEST} and json.loads(tuning._place().read_text())["cpu"] == {KEY: BEST}


def test_a_folder_that_cannot_be_written_to(folder: Path) -> None:
    (folder / "seqdsl").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="for this process alone"):
        assert _tuning() == {KEY: BEST}
    assert _launch()["BV"] == 128  # in this process


def _write(number: int, folder: str) -> None:
    import os

    os.environ["XDG_CACHE_HOME"] = folder
    for k in range(50):
        tuning._keep(torch.device("cpu"), {f"{number} {k}": BEST})
        assert all(tuning._is_tile(tile) for tile in json.loads(tuning._place().read_text())["cpu"].values())


def test_processes_that_write_at_once_leave_a_whole_file(folder: Path) -> None:
    """Each reads a whole file at any time; of two that come at the same moment one may be lost."""
    context = get_context("fork")
    running = [context.Process(target=_write, args=(number, str(folder))) for number in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join(timeout=300)
    assert [process.exitcode for process in running] == [0, 0, 0]
    kept = tuning._read_kept()["cpu"]
    assert kept and all(tile == BEST for tile in kept.values())
    assert [p.name for p in (folder / "seqdsl").iterdir()] == ["seqdsl.json"]
