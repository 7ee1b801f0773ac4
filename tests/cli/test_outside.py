"""The command line and the generated modules against what nobody should write: names, files, folders, options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqdsl
from seqdsl import api
from seqdsl.cli import main
from seqdsl.diagnostics import SeqError
from seqdsl.verify.modules import validate_module

ROOT = Path(__file__).resolve().parents[2]
GOOD = "mixer f(x[t,c]; N = 2) -> y[t,c]:\n    y[t,c] = 0.5 * y[t-1] + x * N\n"
WRONG = "mixer f(x[t]) -> y[t]:\n    y[t] = a\n\nmixer g(x[t]) -> y[t]:\n    y[t] = b\n"

# What Python, torch or the generated file itself uses, in every place that a name can have.
NAMES = [
    "mixer Tensor(torch[t,lambda], self[t,lambda]; to = 3, device = 2) -> nn[t,math]:\n"
    "    param forward[lambda]\n    param __init__[lambda]\n    const _q[class: 2] = (1, 2)\n"
    "    state[t, math: to] = linear[lambda](forward * torch + __init__)\n"
    "    nn[t,math] = 0.5 * nn[t-1] + state * device + sum[class] _q * self[t-class,math]\n",
    "mixer None(B[T,F]; sizes = 2, dtype = 3) -> state[T,F]:\n    state[T,F] = B * sizes + dtype * state[T-1]\n",
    "mixer x_(x[t]) -> y[t]:\n    y[t] = y[t-1] + x\n",
    "mixer _(__builtins__[t]) -> print[t]:\n    print[t] = __builtins__ * t\n",
]


@pytest.mark.parametrize("text", NAMES, ids=["layer", "options", "shadowed", "underscore"])
def test_names_of_the_host_language(text: str) -> None:
    program, backend = seqdsl.load(text), api.load_backend("torch")
    for form in ("recurrent", "auto"):
        validate_module(program.derived(form), program.source(form), program.class_name, backend)


def test_a_comment_cannot_leave_its_place(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    evil = f'__import__("os").system("touch {proof}")'
    text = f'# """ + {evil} + """ {{x}} %s \\N{{DASH}} \\\n{GOOD.rstrip()}  # """; {evil} \\\n'
    path = tmp_path / "evil.seq"
    path.write_text(text)
    assert main(["compile", str(path), "-o", str(tmp_path / "out"), "--no-validate"]) == 0
    seqdsl.load(path).module()
    assert not proof.exists()


def status(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe, empty, helper = tmp_path / "pipe.seq", tmp_path / "empty.seq", tmp_path / "helper.seq"
    os.mkfifo(pipe)
    (tmp_path / "zero.seq").symlink_to("/dev/zero")
    empty.write_text("")
    helper.write_text("fn g(x) = x\n")
    for path, code in ((pipe, "file-not-found"), (tmp_path / "zero.seq", "file-not-found"), (empty, "unknown-mixer"),
                       (helper, "unknown-mixer")):  # fmt: skip
        for command in ("check", "explain", "ir", "test"):
            found, text = status(capsys, command, str(path))
            assert found == 2 and f"error[{code}]" in text
    assert status(capsys, "fmt", "--check", str(pipe))[0] == 2


def test_folders_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.seq"
    path.write_text(GOOD)
    for folder in (path, path / "x", Path("/dev/null")):
        found, text = status(capsys, "compile", str(path), "-o", str(folder), "--no-validate")
        assert found == 2 and "error[file-not-written]" in text
    path.write_text(GOOD.replace("mixer f", "mixer " + "m" * 300))
    assert "error[name-too-long]" in status(capsys, "compile", str(path), "-o", str(tmp_path), "--no-validate")[1]


def test_sizes_that_are_too_large_to_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "large.seq"
    path.write_text("mixer f(x[t,c]) -> y[t,c]:\n    param w[j: 10^10, c]\n    y[t,c] = sum[j] w * x\n")
    code, text = status(capsys, "compile", str(path), "-o", str(tmp_path))
    assert code == 0 and "not compared" in text and "agrees" not in text
    code, text = status(capsys, "test", str(path), "--examples", "1")
    assert "not tried" in text and " ok " not in text


def test_names_that_are_misspelt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "windowed.seq"
    path.write_text(GOOD)
    asked: list[tuple[list[str], str]] = [
        (["explain", "stray-indx"], "stray-index"),
        (["explain", "Stray_Index"], "stray-index"),
        (["explain", "form-not-avail"], "form-not-available"),
        (["check", "retentoin"], "retention"),
        (["check", "gla.seq"], "gla"),
        (["check", str(tmp_path / "window.seq")], str(path)),
        (["compile", str(tmp_path / "windwed.seq"), "-o", str(tmp_path)], str(path)),
        (["check", "gla", "--mixer", "Gla_"], "GLA"),
    ]
    for arguments, meant in asked:
        code, text = status(capsys, *arguments)
        assert code == 2 and f"did you mean `{meant}`" in text, text
    assert "did you mean" not in status(capsys, "check", "zzzzzz")[1]


def test_what_no_mixer_uses_is_said_not_to_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.seq"
    unused = "\nmonoid M(m):\n    combine(a, b):\n        m = g(a.m) - b.m\n    claim associative\n\nfn g(x) = h(x)\n"
    path.write_text(GOOD + unused + "\nfn used(x) = x\n\nmixer k(x[t]) -> y[t]:\n    y[t] = used(x)\n")
    found, text = status(capsys, "check", str(path))
    assert found == 0 and "monoid M: no mixer" in text and "fn g: no mixer" in text and "used:" not in text
    assert json.loads(status(capsys, "check", str(path), "--json")[1])["unused"] == ["M", "g"]


def test_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.seq"
    path.write_text(GOOD)
    for setting, code in (("N=²", "bad-setting"), ("N=-1", "bad-setting"), ("M=3", "unknown-option")):
        found, text = status(capsys, "check", str(path), "--set", setting)
        assert found == 2 and f"error[{code}]" in text
    assert status(capsys, "compile", str(path), "-o", str(tmp_path), "--set", "N=7", "--no-validate")[0] == 0
    assert "N: int = 7" in (tmp_path / "f.py").read_text()
    assert status(capsys, "bench", str(path), "--length", "-5")[0] == 2
    assert status(capsys, "bench", str(path), "--rounds", "0")[0] == 2


def test_faults_of_all_mixers_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.seq"
    path.write_text(WRONG)
    for command in ("check", "explain", "ir"):
        found, text = status(capsys, command, str(path))
        assert found == 2 and "no name `a` in `f`" in text and "no name `b` in `g`" in text


class Full:
    """A standard output on a full disk."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def test_a_full_or_closed_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, expected in ((Full(), 2), (None, 0)):
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["check", "ema"]) == expected


def test_closed_standard_input_and_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["ir", "-"]) == 2
    assert "bad-ir-text" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["check", "no such file"]) == 2
    assert capsys.readouterr().out == ""  # a fault goes nowhere, least of all into the data


def test_nothing_of_the_compiler_is_loaded_before_the_command_line_answers_an_interrupt() -> None:
    script = "import sys, seqdsl.cli; print(sorted(m for m in sys.modules if m.startswith('seqdsl')))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == str(["seqdsl", "seqdsl.cli", "seqdsl.cli.main", "seqdsl.config"])


LAYER = "mixer f(x[t,c], n[t]: int; H = 2) -> y[t,h]:\n    q[t, h: H] = linear[c](x)\n    y[t,h] = y[t-1] + q * n\n"
ONES, COUNT = np.ones((4, 3)), np.arange(4)
CALLS: list[tuple[dict[str, Any], dict[str, Any], str]] = [  # inputs, further arguments, code
    ({"x": ONES}, {}, "missing-input"),
    ({"x": ONES, "n": COUNT, "z": COUNT}, {}, "bad-input"),
    ({"x": ONES, "n": COUNT + 0.5}, {}, "bad-input"),
    ({"x": ONES * 1j, "n": COUNT}, {}, "bad-input"),
    ({"x": [[1.0, 2.0], [3.0]], "n": COUNT}, {}, "bad-input"),
    ({"x": "abc", "n": COUNT}, {}, "bad-input"),
    ({"x": ONES[0], "n": COUNT}, {}, "size-mismatch"),
    ({"x": ONES, "n": COUNT}, {"sizes": {"c": 7}}, "size-mismatch"),
    ({"x": ONES, "n": COUNT}, {"sizes": {"H": float("nan")}}, "bad-size"),
    ({"x": ONES, "n": COUNT}, {"sizes": {"H": 2.5}}, "bad-size"),
    ({"x": ONES, "n": COUNT}, {"sizes": {"H": 0}}, "bad-size"),
    ({"x": ONES, "n": COUNT}, {"sizes": {"Q": 2}}, "unknown-size"),
    ({"x": ONES, "n": COUNT}, {"state": 3}, "bad-input"),
    ({"x": ONES, "n": COUNT}, {"state": {3: COUNT}}, "bad-input"),
    ({"x": torch.ones(4, 3, requires_grad=True), "n": COUNT}, {}, "bad-input"),
    ({"x": ONES, "n": COUNT}, {"state": {"S": COUNT}}, "bad-input"),
    ({"x": ONES, "n": COUNT}, {"state": {"y": COUNT}}, "size-mismatch"),
    ({"x": ONES, "n": COUNT}, {"sizes": [2]}, "bad-input"),
    ({"x": ONES, "n": COUNT}, {"params": [2]}, "bad-input"),
    ({"x": ONES, "n": COUNT}, {"form": "nope"}, "unknown-form"),
]


@pytest.mark.parametrize("inputs, more, code", CALLS, ids=[f"{k}-{c[2]}" for k, c in enumerate(CALLS)])
def test_what_interpret_refuses(inputs: dict[str, Any], more: dict[str, Any], code: str) -> None:
    with pytest.raises(SeqError) as caught:
        seqdsl.load(LAYER).interpret(inputs, **more)
    assert caught.value.code == code


MODULES: list[tuple[dict[str, Any], str]] = [
    ({}, "missing-size"),
    ({"c": 3, "Q": 2}, "unknown-size"),
    ({"c": -3}, "bad-size"),
    ({"c": "3"}, "bad-size"),
    ({"c": 3, "H": 0}, "bad-size"),
    ({"c": 2**33}, "size-too-large"),
    ({"c": 10**30}, "size-too-large"),
    ({"c": 3, "form": "nope"}, "unknown-form"),
    ({"c": 3, "backend": "nope"}, "unknown-backend"),
]


@pytest.mark.parametrize("sizes, code", MODULES, ids=str)
def test_what_module_refuses(sizes: dict[str, Any], code: str) -> None:
    with pytest.raises(SeqError) as caught:
        seqdsl.load(LAYER).module(**sizes)
    assert caught.value.code == code


def test_what_an_api_call_refuses() -> None:
    with pytest.raises(SeqError, match="unknown-option"):
        seqdsl.load(GOOD, M=3)
    with pytest.raises(SeqError, match="unknown-mixer"):
        seqdsl.load(GOOD, 3)  # type: ignore[arg-type]
    assert seqdsl.load(LAYER).module(c=np.int64(3)).q.weight.shape == (3, 2)
    assert seqdsl.load(GOOD, N=0).interpret({"x": [[1.0]]})["outputs"]["y"].tolist() == [[0.0]]


def test_a_transform_of_powers_of_two_can_be_compiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.seq"
    path.write_text("mixer f(x[t,c]) -> y[t,c]:\n    y[t,c] = hadamard[c](x)\n")
    assert status(capsys, "compile", str(path), "-o", str(tmp_path))[0] == 0
    path.write_text("mixer f(x[t,c]) -> y[t,c]:\n    X[f: |t|, c] = rfft[t -> f](x)\n    y[t,c] = irfft[f -> t](X)\n")
    found, text = status(capsys, "compile", str(path), "-o", str(tmp_path))
    assert found == 2 and "error[size-mismatch]" in text


def test_an_option_that_decides_the_equations_is_given_with_the_sizes() -> None:
    text = (
        "mixer f(x[t,c]; n = 2) -> y[t,c]:\n    z0 = x\n    for l in 0..n:\n        z{l+1}[t,c] = 2 * z{l}\n"
        "    y[t,c] = linear[c -> c](z{n})\n"
    )
    module = seqdsl.load(text).module(c=1, n=3).double()
    module.load_state_dict({"y.weight": torch.ones(1, 1)})
    assert module(torch.ones(1, 1, 1, dtype=torch.double)).item() == 8
