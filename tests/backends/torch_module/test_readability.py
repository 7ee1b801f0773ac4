"""Generated files read like written ones: a linter finds nothing, nothing is there that nothing uses.

Those of the library are asked the same where they are made anyway, in `tests/references/test_checked.py`.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from seqdsl.backends.torch_module.layout import WIDTH, wrapped
from seqdsl.backends.torch_module.polish import tidy

import seqdsl
from tests.backends.torch_module.harness import CORPUS
from tests.backends.torch_module.readable import check_reads_well, lint

ROOT = Path(__file__).resolve().parents[3]
READ = ["gla.gla", "gla.GLA", "mamba.Mamba", "attention.attention", "lstm.lstm", "gru.gru", "sinkhorn.sinkhorn",
        "transformer.Transformer", "nsa.nsa", "titans.titans", "tome.tome", "mlp.conv3x3",
        "bidirectional.bidirectional"]  # fmt: skip


@cache
def read() -> dict[str, str]:
    """The files that reviewers read, as they are planned and as a recurrence."""
    found = {}
    for name in READ:
        file, mixer = name.split(".")
        program = seqdsl.load(CORPUS / f"{file}.seq", mixer)
        found[f"corpus.{name}"] = program.source()
        found[f"recurrent.{name}"] = program.source("recurrent")
    return found


def test_a_linter_finds_nothing(tmp_path: Path) -> None:
    for name, text in read().items():
        (tmp_path / f"{name.replace('.', '_')}.py").write_text(text)
    assert lint(tmp_path) == ""


def test_texts_read_well() -> None:
    for text in read().values():
        check_reads_well(text)


@pytest.mark.parametrize("name", READ)
def test_equations_stand_above_their_code(name: str) -> None:
    """Each equation of the text is a comment, with code below it, and every tensor has its shape."""
    file, mixer = name.split(".")
    text = read()[f"corpus.{name}"]
    for equation in seqdsl.load(CORPUS / f"{file}.seq", mixer).system().derived():
        first = " ".join(equation.comment.split())[:60]
        if equation.comment and "state" not in first:
            assert first in " ".join(re.sub(r"\n\s*#", "", text).split()), equation.comment
    lines = text.splitlines()
    for line, following in zip(lines, lines[1:], strict=False):
        if line.strip().startswith("# ") and not line.startswith("#"):
            assert following.strip() and not following.strip().startswith(("return", "else")), line


CODE = '''def f(a, b):
    unused = g(a)
    # y = a
    y_read, y_state = g(a)
    y = y_read
    # the last state
    y_final = y_state
    if not a:
        return y
    return y, {"y_read": y_final}
'''


def test_tidying_keeps_what_is_computed() -> None:
    assert tidy(CODE) == '''def f(a, b):
    # y = a
    y, y_final = g(a)
    if not a:
        return y
    return y, {"y_read": y_final}
'''
    kept = "def f(a):\n    for i in a:\n        b = i\n    return a\n"
    assert tidy(kept) == kept  # a block does not become empty


@pytest.mark.parametrize(
    "line",
    [
        "    value = first_function(" + ", ".join(f"argument_{n}[:, None]" for n in range(12)) + ")  # [B, T]",
        "    value = " + " + ".join(f"(left_{n} * right_{n})" for n in range(12)) + "  # [B, T]",
        "    value = torch.zeros(B, T) if state is None else " + "state" + "['a']" * 30,
        "    return [" + "name_of_something" + "_long" * 10 + "[n] for n in range(first_length + second_length + third)], other",
        "    raise ValueError('a # b, (' + " + " + ".join(f"text_{n}" for n in range(30)) + ")",
        "def f(self, " + ", ".join(f"a{n}: Tensor" for n in range(20)) + ", *, state: Any = None) -> Any: ...",
    ],
)  # fmt: skip
def test_wrapping_keeps_the_syntax_tree(line: str) -> None:
    around = line if line.startswith("def") else f"def f():\n{line}"
    found = wrapped(around)
    assert ast.dump(ast.parse(found)) == ast.dump(ast.parse(around))
    assert max(map(len, found.splitlines())) <= WIDTH + 12 and found.count("\n") > 1
    assert found.count("# [B, T]") == line.count("# [B, T]")


def test_wrapping_generated_files_keeps_their_syntax_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def compared(text: str) -> str:
        found = wrapped(text)
        seen.append(found != text)
        assert ast.dump(ast.parse(found)) == ast.dump(ast.parse(text))
        return found

    monkeypatch.setattr("seqdsl.backends.torch_module.module.wrapped", compared)
    for name in READ:
        file, mixer = name.split(".")
        seqdsl.load(CORPUS / f"{file}.seq", mixer).source()
    assert seen.count(True) > 8


def test_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    script = "import seqdsl, sys\nfor f, m in [('nsa', 'nsa'), ('mamba', 'Mamba'), ('titans', 'titans_mlp')]:\n" \
             f"    sys.stdout.write(seqdsl.load({str(CORPUS)!r} + '/' + f + '.seq', m).source())\n"  # fmt: skip
    found = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
        found.add(run.stdout)
    assert len(found) == 1 and "class Mamba" in found.pop()
