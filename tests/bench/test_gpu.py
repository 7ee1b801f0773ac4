"""The benchmark on GPUs as far as it goes without one: its rows, their inputs, and processes that die."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from triton.runtime.autotuner import Autotuner

from tests.bench import gpu, peers

SHAPES = gpu.SHAPES[2:5]


def _process(program: str) -> subprocess.Popen[str]:
    return gpu.started([sys.executable, "-c", program])


def test_a_process_that_dies_leaves_its_rows_and_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {
        "triton": "import os, json\nprint(json.dumps({'shape': [4, 2048, 16, 128], 'forward': 1.0}), flush=True)\nos.abort()",
        "torch": "import json\nfor s in ([4, 2048, 16, 128], [4, 4096, 64, 128], [8, 2048, 32, 256]):\n"
                 "    print('a warning')\n    print(json.dumps({'shape': s, 'forward': 2.0}))",
    }  # fmt: skip
    start = gpu.started
    monkeypatch.setattr(gpu, "started", lambda command: start([sys.executable, "-c", programs[command[5]]]))
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
    found = gpu.groups(list(gpu.MIXERS), list(gpu.CANDIDATES))
    assert [shapes for candidate, _, shapes in found if candidate != "torch"] == [gpu.SHAPES] * (len(found) - len(gpu.MIXERS))
    assert set(peers.FLA) < set(gpu.MIXERS)
    beside = [x for x in gpu.MIXERS if x in peers.FLA] if "fla" in gpu.CANDIDATES else []
    assert [name for candidate, name, _ in found if candidate == "fla"] == beside


def test_processes_share_what_a_tuner_may_launch() -> None:
    def taken(share: int) -> list[int]:
        ran: list[int] = []
        tuners = [object.__new__(Autotuner) for _ in range(2)]
        with peers.compiling(share, 3):
            best = [min(range(7), key=lambda k: tuner.do_bench(lambda: ran.append(k), quantiles=None)) for tuner in tuners]  # noqa: B023
        assert best == [0, 0] and ran.count(0) >= 2  # the first is taken, and has been compiled
        return ran

    shares = [taken(share) for share in range(3)]
    assert all(sum(k in ran for ran in shares) >= 1 for k in range(7)) and all(len(ran) < 8 for ran in shares)


@pytest.mark.parametrize("name", gpu.MIXERS)
def test_modules_take_the_inputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "SSM_WIDTH", 8)
    inputs = gpu.MIXERS[name](2, 5, 2, 4)
    outputs = [gpu.operator(backend, name)(*inputs) for backend in ("triton", "torch")]
    assert outputs[0].shape[:2] == (2, 5) and outputs[0].dtype == torch.bfloat16
    ours, plain = (y.double() for y in outputs)
    assert (ours - plain).norm() < 1e-2 * plain.norm()


def test_a_peer_that_computes_something_else_is_apart() -> None:
    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a * b

    inputs = [torch.randn(3, 4, dtype=torch.float64) for _ in range(2)]
    assert gpu.apart(product, product, inputs) == 0.0
    assert abs(gpu.apart(lambda a, b: (1.01 * a * b, None), product, inputs) - 0.01) < 1e-6  # its output, and its gradients
    assert gpu.apart(lambda a, b: a * b.detach() + 0 * b, product, inputs) == 1.0  # one gradient alone


def test_what_is_tuned_is_compiled_in_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(candidate: str, name: str, shapes: list[Any], *more: str) -> list[str]:
        return [sys.executable, "-c", f"open({str(tmp_path / '-'.join([candidate, name, *more]))!r}, 'w')"]

    monkeypatch.setattr(gpu, "command", command)
    gpu.prepare([("triton", "gla", list(SHAPES)), ("fla", "gla", list(SHAPES)), ("torch", "gla", list(SHAPES))], 100.0)
    assert {p.name for p in tmp_path.iterdir()} == {"triton-gla---compile-0-1", *(f"fla-gla---compile-{k}-3" for k in range(3))}
