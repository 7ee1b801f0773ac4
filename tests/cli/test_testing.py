"""`seqc test`: examples, seeds, one form, one case; the same twice; a failure names a command that shows it again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from seqdsl.cli import main
from seqdsl.forms import Derived, derive
from seqdsl.ir.system import System
from seqdsl.verify import suite
from tests.mutants.tools import option

MIXER = "mixer ema(x[t,c], a[t,c]) -> y[t,c]:\n    y[t,c] = sigmoid(a) * y[t-1] + x\n"


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A file with one mixer."""
    path = tmp_path / "ema.seq"
    path.write_text(MIXER)
    return str(path)


def test_seeds_and_examples(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for arguments in ((), (), ("--seed", "4"), ("--examples", "1", "--deep")):
        assert main(["test", file, "--form", "scan", "--examples", "3", "--json", *arguments]) == 0
        found.append(json.loads(capsys.readouterr().out)["ema"])
    assert found[0] == found[1]
    assert {row["form"] for row in found[0]} == {"scan"}
    assert all(a["examples"] > b["examples"] for a, b in zip(found[3], found[0], strict=True))


@pytest.mark.parametrize(
    "arguments", [("--case", "x"), ("--form", "magic"), ("--form", "quadratic"), ("--examples", "0"), ("--seed", "-1")]
)
def test_mistakes(file: str, arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", file, *arguments]) == 2
    assert capsys.readouterr().err.startswith("error[")


def test_a_failure_names_the_command_that_shows_it(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(system: System, form: str) -> Derived:
        derived = derive(system, form)
        return (
            replace(derived, system=option("affine_scan", "log", False)(derived.system)) if form == "scan" else derived
        )

    monkeypatch.setattr(suite, "derive", broken)
    assert main(["test", file, "--form", "scan", "--examples", "5"]) == 1
    lines = capsys.readouterr().out.splitlines()
    first = next(n for n, line in enumerate(lines) if "FAILED" in line)
    command = lines[first + 2].partition("again: seqc ")[2]
    assert "--case" in command and "|t| =" in lines[first + 1]
    assert main(command.split()) == 1
    assert lines[first + 1] in capsys.readouterr().out


def test_a_constant_that_is_no_float32_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Modules are built in float64: 0.7 that has been a float32 would differ from the equations by 6e-9."""
    path = tmp_path / "leak.seq"
    path.write_text("mixer leak(x[t,c]) -> y[t,c]:\n    const a[c] = 0.7\n    y[t,c] = a * y[t-1] + x\n")
    assert main(["test", str(path), "--form", "scan", "--examples", "3"]) == 0, capsys.readouterr().out


def test_a_kernel_as_long_as_the_sequence_fits_no_packed_sequences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "conv.seq"
    path.write_text("mixer conv(x[t], w[l: |t|]) -> y[t]:\n    y[t] = sum[l | l <= t] w * x[t-l]\n    claim causal\n")
    assert main(["test", str(path), "--examples", "4", "--json"]) == 0
    rows = {row["property"] for row in json.loads(capsys.readouterr().out)["conv"]}
    assert "module equals the equations" in rows and "packed sequences do not mix" not in rows
