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


def test_a_fold_without_an_identity_is_not_tried_on_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fold.seq"
    path.write_text(
        "monoid halves(x):\n    combine(a, b):\n        x = (a.x + b.x) / 2\n\n"
        "mixer fold(x[t,c]) -> y[c]:\n    y[c] = halves[t](x)\n"
    )
    assert main(["test", str(path), "--examples", "16", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["fold"]
    assert "float32 is close to float64" in {row["property"] for row in rows}


def test_a_packed_piece_whose_length_the_equations_have_no_size_for_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pairs.seq"
    pairs = "    z[g: |n| / 2, p: 2, c] = x[2 * g + p]\n    m[g,c] = sum[p] z\n    y[n,c] = x + m[n // 2]\n"
    path.write_text(f"mixer pairs(x[n,c]) -> y[n,c]:\n{pairs}")
    assert main(["test", str(path), "--examples", "4"]) == 0


def test_causality_under_a_condition_on_sizes_is_not_asked_of_other_sizes(tmp_path: Path) -> None:
    path = tmp_path / "ahead.seq"
    ahead = "    index s over t\n    y[t] = sum[s | s <= t + W] x[s]\n    claim causal when W == 0\n"
    path.write_text(f"mixer ahead(x[t]; W = 1) -> y[t]:\n{ahead}")
    assert main(["test", str(path), "--examples", "4"]) == 0


def test_equations_that_run_away_say_nothing_of_gradients(tmp_path: Path) -> None:
    path = tmp_path / "squares.seq"
    path.write_text("mixer squares(x[t]) -> h[t]:\n    h[t] = h[t-1]^2 + 2 + x^2\n")
    assert main(["test", str(path), "--form", "recurrent", "--examples", "6"]) == 0


def test_a_kernel_as_long_as_the_sequence_fits_no_packed_sequences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "conv.seq"
    path.write_text("mixer conv(x[t], w[l: |t|]) -> y[t]:\n    y[t] = sum[l | l <= t] w * x[t-l]\n    claim causal\n")
    assert main(["test", str(path), "--examples", "4", "--json"]) == 0
    rows = {row["property"] for row in json.loads(capsys.readouterr().out)["conv"]}
    assert "module equals the equations" in rows and "packed sequences do not mix" not in rows
