"""Inputs that kernels must take as they come, or refuse in words: never a wrong result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqdsl
from tests.backends.triton_kernel.faults import FAULTS, FUNCTIONS, interpreted
from tests.backends.triton_kernel.processes import ROOT


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    return interpreted()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_kind_of_input(name: str, fault: str, found: dict[str, str]) -> None:
    assert found[f"{fault}, {name}"] == "right"


GLA = {"q": (2, 5, 1, 4), "k": (2, 5, 1, 4), "v": (2, 5, 1, 3), "g": (2, 5, 1, 4)}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("q", {"dtype": torch.int64}, "`q` must be real, and is torch.int64"),
        ("g", {"dtype": torch.complex64}, "`g` must be real, and is torch.complex64"),
        ("k", {"size": (2, 6, 1, 4)}, "the axis `t` has length 6 in `k` .*, and 5 in `q`"),
        ("v", {"size": (2, 5, 2, 3)}, "the axis `h` has length 2 in `v`"),
        ("k", {"size": (3, 5, 1, 4)}, "`k` has batch size 3, and other inputs 2"),
        ("k", {"size": (5, 1, 4)}, r"`k` must have the axes \[batch, t, h, d\], and is \[5, 1, 4\]"),
        ("g", {"device": "meta"}, "`g` is on meta, and `q` on cpu"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, change: dict[str, object], message: str) -> None:
    inputs = {n: torch.zeros(*shape) for n, shape in GLA.items()}
    inputs[name] = torch.zeros(**{"size": GLA[name], **change})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        seqdsl.load("gla").module(backend="triton")(*inputs.values())


def test_two_processes_may_write_the_same_files(tmp_path: Path) -> None:
    """Both compile into one folder, with one cache: each finds whole files, its own or the other's."""
    code = (f"import seqdsl\nfor path in seqdsl.compile('gla', {str(tmp_path / 'out')!r}, backend='triton'):\n"
            "    print(path.name, len(path.read_text()))\nseqdsl.load('gla').module(backend='triton')")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    (tmp_path / "out").mkdir()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    done = [(*process.communicate(timeout=300), process.returncode) for process in running]
    assert all(status == 0 for _, _, status in done), done
    assert done[0][0] == done[1][0] and done[0][0].count("\n") == 4


def test_a_file_of_the_cache_that_is_damaged_is_written_again(tmp_path: Path) -> None:
    code = ("import sys, seqdsl\nfrom pathlib import Path\nfrom seqdsl.config import private_folder\n"
            "module = seqdsl.load('gla').module(backend='triton')\n"
            "print(len(list(private_folder().rglob('seqdsl_generated_*.py'))))")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "2\n"
        for path in tmp_path.rglob("seqdsl_generated_*.py"):
            path.write_bytes(b"\xff\x00")
