"""The pytest plugin as a project meets it: what is collected, what fails and how it reads, and what stays untouched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

GOOD = "mixer ema(x[t,c], a[t,c]) -> y[t,c]:\n    y[t,c] = sigmoid(a) * y[t-1] + x\n    claim causal, linear(x)\n"
FALSE = "mixer late(x[t]) -> y[t]:\n    y[t] = x[t+1]\n    claim causal\n"
WRONG = "mixer f(q[t,d], S[t,d,e]) -> o[t,e]:\n    o[t,e] = q * S\n"
ROOT = str(Path(__file__).resolve().parents[2])
PLUGIN = ("-p", "no:seqdsl", "-p", "seqdsl.pytest_plugin", "-p", "no:cacheprovider")


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a test, and a folder of mixers. It is tested in processes of its own: torch loads only once."""
    monkeypatch.setenv("PYTHONPATH", ROOT)
    pytester.makepyfile(test_own="def test_own():\n    pass\n")
    mixers = pytester.mkdir("mixers")
    (mixers / "ema.seq").write_text(GOOD)
    return mixers


def test_a_folder_gives_an_item_for_each_form_and_claim(pytester: pytest.Pytester, folder: Path) -> None:
    result = pytester.runpytest_subprocess(*PLUGIN, "mixers", "-v", "--seq-examples", "4", "--seq-seed", "5")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(
        [
            "*ema.seq::ema[[]recurrent] PASSED*",
            "*ema.seq::ema[[]scan] PASSED*",
            "*ema.seq::ema[[]causal] PASSED*",
            "*ema.seq::ema[[]linear(x)] PASSED*",
        ]
    )


def test_only_what_is_asked_for_is_collected(pytester: pytest.Pytester, folder: Path) -> None:
    assert pytester.runpytest_subprocess(*PLUGIN).parseoutcomes() == {"passed": 1}
    assert pytester.runpytest_subprocess(*PLUGIN, ".").parseoutcomes() == {"passed": 1}
    (folder / "conftest.py").write_text("")
    assert "passed" not in pytester.runpytest_subprocess(*PLUGIN, "mixers").parseoutcomes()
    listed = pytester.runpytest_subprocess(*PLUGIN, "mixers/ema.seq", "--collect-only", "-q")
    assert "ema[recurrent]" in listed.stdout.str()
    pytester.makeini("[pytest]\nseq_files = true\n")
    assert "ema[recurrent]" in pytester.runpytest_subprocess(*PLUGIN, "--collect-only", "-q").stdout.str()


def test_failures_are_words_not_tracebacks(pytester: pytest.Pytester, folder: Path) -> None:
    (folder / "ema.seq").write_text(FALSE)
    result = pytester.runpytest_subprocess(*PLUGIN, "mixers")
    assert result.parseoutcomes()["failed"] >= 1
    text = result.stdout.str()
    assert "claim causal: refuted" in text and "|t| =" in text and "Traceback" not in text
    (folder / "ema.seq").write_text(WRONG)
    result = pytester.runpytest_subprocess(*PLUGIN, "mixers")
    assert result.parseoutcomes() == {"errors": 1} and "stray-index" in result.stdout.str()


def test_nothing_heavy_is_loaded_for_those_who_do_not_ask(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import sys\n\ndef test_own():\n"
        "    assert not {'torch', 'hypothesis', 'sympy', 'lark', 'numpy', 'networkx'} & set(sys.modules)\n"
    )
    (tmp_path / "x.seq").write_text(GOOD)
    command = [sys.executable, "-m", "pytest", "-q", *PLUGIN, "-p", "no:hypothesispytest", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": ROOT, "PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
