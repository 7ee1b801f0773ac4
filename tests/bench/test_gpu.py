"""The benchmark on GPUs as far as it goes without one: its rows, their inputs, and processes that die."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bench import gpu

SHAPES = gpu.SHAPES[2:5]


def _process(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_process_that_dies_leaves_its_rows_and_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {
        "triton": "import os, json\nprint(json.dumps({'shape': [4, 2048, 16, 128], 'forward': 1.0}), flush=True)\nos.abort()",
        "torch": "import json\nfor s in ([4, 2048, 16, 128], [4, 4096, 64, 128], [8, 2048, 32, 256]):\n"
                 "    print('a warning')\n    print(json.dumps({'shape': s, 'forward': 2.0}))",
    }  # fmt: skip
    lines = gpu.lines
    monkeypatch.setattr(gpu, "lines", lambda command, seconds: lines(_process(programs[command[5]]), seconds))
    found: dict[str, Any] = {"milliseconds": {}}
    wanted = [(candidate, "gla", list(SHAPES)) for candidate in programs]
    gpu.record(tmp_path / "a.json", found, wanted, 100.0)
    rows = json.loads((tmp_path / "a.json").read_text())["milliseconds"]["gla"]
    assert [row["torch"] for row in rows.values()] == [{"forward": 2.0}] * 3
    first, *rest = (row["triton"] for row in rows.values())
    assert first == {"forward": 1.0} and all("ended with status -" in row["error"] for row in rest) and len(rest) == 2


def test_what_hangs_is_ended() -> None:
    assert list(gpu.lines(_process("import time\ntime.sleep(100)"), 0.5))[0]["status"] != 0


def test_there_is_a_row_for_every_mixer_on_every_shape() -> None:
    found = gpu.groups(list(gpu.MIXERS), fla=True)
    assert [shapes for candidate, _, shapes in found if candidate != "torch"] == [gpu.SHAPES] * (len(found) - len(gpu.MIXERS))
    assert {name for candidate, name, _ in found if candidate == "fla"} == set(gpu.FLA) < set(gpu.MIXERS)


@pytest.mark.parametrize("name", gpu.MIXERS)
def test_modules_take_the_inputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "SSM_WIDTH", 8)
    inputs = gpu.MIXERS[name](2, 5, 2, 4)
    outputs = [gpu.operator(backend, name)(*inputs) for backend in ("triton", "torch")]
    assert outputs[0].shape[:2] == (2, 5) and outputs[0].dtype == torch.bfloat16
    ours, plain = (y.double() for y in outputs)
    assert (ours - plain).norm() < 1e-2 * plain.norm()
