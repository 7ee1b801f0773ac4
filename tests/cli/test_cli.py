"""The command line as a user meets it: output, exit status, JSON, and no traceback ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import seqdsl
from seqdsl.cli import main

WRONG = "mixer f(q[t,d], S[t,d,e]) -> o[t,e]:\n    o[t,e] = q * S\n"
FALSE = "mixer f(x[t]) -> y[t]:\n    y[t] = x[t+1]\n    claim causal\n"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    found = capsys.readouterr()
    return status, found.out, found.err


def test_check_says_what_a_recurrence_is(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "check", "gla")
    assert status == 0
    assert "recurrence S along t: diagonal" in out
    assert "claim stable(S): proved" in out
    assert "chunkwise (auto)" in out


def test_check_json_is_plain_data(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "check", "gla", "--json")
    found = json.loads(out)
    assert status == 0 and found["ok"]
    assert found["mixers"][0]["recurrences"][0]["class"] == "diagonal"


def test_a_users_error_is_status_2_with_code_and_place(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "wrong.seq"
    path.write_text(WRONG)
    status, out, err = run(capsys, "check", str(path))
    assert status == 2 and out == ""
    assert err.startswith("error[stray-index]") and "wrong.seq:2:" in err and "Traceback" not in err
    status, out, _ = run(capsys, "check", str(path), "--json")
    assert status == 2 and json.loads(out)["errors"][0]["code"] == "stray-index"


def test_a_refuted_claim_is_status_1_with_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "false.seq"
    path.write_text(FALSE)
    status, out, _ = run(capsys, "check", str(path))
    assert status == 1
    assert "claim-refuted" in out and "|t| =" in out


def test_explain_prints_the_derivation_and_codes(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "explain", "gla", "--mixer", "gla")
    assert status == 0
    assert "decayed_read[t,d]" in out and "cost:" in out and "not available" in out
    for code in ("stray-index", "unclosed-bracket", "form-not-available"):
        status, out, _ = run(capsys, "explain", code)
        assert status == 0 and out.startswith(code)


def test_compile_of_a_stack_of_layers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The layers' numbers are part of their weights' names, `x.0.norm1`, as torch has them."""
    file = Path(__file__).resolve().parents[1] / "corpus" / "transformer.seq"
    status, out, _ = run(capsys, "compile", str(file), "-o", str(tmp_path), "--mixer", "Transformer")
    assert status == 0 and "agrees with its equations" in out


def test_compile_writes_what_agrees(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run(capsys, "compile", "ema", "-o", str(tmp_path), "--mixer", "ema")
    assert status == 0 and "agrees with its equations" in out
    first = (tmp_path / "ema.py").read_text()
    assert "import seqdsl" not in first and "from seqdsl" not in first
    run(capsys, "compile", "ema", "-o", str(tmp_path), "--mixer", "ema")
    assert (tmp_path / "ema.py").read_text() == first


def test_a_form_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "compile", "gru", "-o", str(tmp_path), "--form", "scan")
    assert status == 2 and "form-not-available" in err and list(tmp_path.iterdir()) == []


def test_test_runs_every_property(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "test", "ema", "--mixer", "ema", "--examples", "4")
    assert status == 0
    assert out.count(" ok ") >= 8 and "module equals the equations" in out


def test_a_report_prints_as_the_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "check", "gla", "--mixer", "gla")
    assert status == 0 and out == f"{seqdsl.load('gla', 'gla').check()}\n"


@pytest.mark.parametrize("more", ["--mixer gla --after chunkwise", "--after adjoint"])  # of all mixers of the file, too
def test_ir_reads_back(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    import io

    status, out, _ = run(capsys, "ir", "gla", *more.split())
    assert status == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(out))
    status, again, _ = run(capsys, "ir", "-")
    assert status == 0 and again == out


def test_fmt_is_idempotent_and_checks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "f.seq"
    path.write_text("mixer f(x[t])->y[t]:\n  # kept\n  y[t]=2*x\n")
    assert run(capsys, "fmt", str(path), "--check")[0] == 1
    assert run(capsys, "fmt", str(path))[0] == 0
    assert "# kept" in path.read_text()
    assert run(capsys, "fmt", str(path), "--check")[0] == 0


@pytest.mark.parametrize("line", ["list --json --markdown", "fmt f.seq --check --stdout"])
def test_options_that_contradict_each_other_are_refused(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with pytest.raises(SystemExit) as exit:
        main(line.split())
    assert exit.value.code == 2 and "not allowed with" in capsys.readouterr().err


def test_list_names_every_mixer(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list", "--json")
    assert status == 0
    assert {"gla", "Mamba", "attention"} <= {row["mixer"] for row in json.loads(out)}


@pytest.mark.parametrize(
    "arguments",
    [("check", "no_such_mixer"), ("check", "/no/such/file.seq"), ("check", "gla", "--set", "x"), ("ir", "gla", "--after", "magic"),
     ("compile", "gla", "--backend", "fortran"), ("check", "gla", "--mixer", "nobody"), ("check", "."), ("fmt", "/nowhere.seq")],
)  # fmt: skip
def test_mistakes_on_the_command_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert err.startswith("error[") and "Traceback" not in err


def test_bad_ir_text_is_a_users_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    for text in ("", "nonsense", "system", "\0"):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert run(capsys, "ir", "-")[0] == 2
