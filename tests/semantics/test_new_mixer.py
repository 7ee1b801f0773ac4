"""examples/new_mixer.md: what it shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from seqdsl.cli import main

TEXT = (Path(__file__).parents[2] / "examples" / "new_mixer.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "fading_delta.seq"
    file.write_text("\n".join(blocks("seq")), encoding="utf-8")
    return file


def test_the_file_is_laid_out_and_its_claims_hold(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", "--check", str(path)]) == 0
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "low-rank" in out and "forms: recurrent (auto), scan, chunkwise, quadratic" in out
    assert out.count(": proved:") >= 8 and "tested" not in out


@pytest.mark.parametrize(
    ("old", "new", "status", "answer"),
    [("exp(g) * S[t-1]", "exp(g) * S[t]", 2, "not-well-founded"), (" when g == 0.0", "", 1, "g = 1 everywhere")],
)
def test_the_mistakes_get_the_answers_shown(
    path: Path, old: str, new: str, status: int, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert main(["check", str(path)]) == status
    said = capsys.readouterr()
    assert answer in said.out + said.err


def test_the_forms_agree(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(path), "--examples", "2"]) == 0, capsys.readouterr().out


def test_the_python_runs(path: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)  # noqa: S102  (our own page)
    assert names["y"].shape == (2, 100, 64) and names["o_next"].shape == (2, 4, 8)
