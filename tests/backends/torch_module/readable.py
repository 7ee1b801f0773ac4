"""Generated files read like written ones: what is asked of every text, and what of a folder of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from seqdsl.backends.torch_module.layout import WIDTH

ABSURD = (r"torch\.full\(\(\), [01],", r"\+ -\d", r"-1 \*", r"\w, \w+,\)", r"^\s+(\w+) = \1$", r"\n\n\n\n")


def check_reads_well(text: str) -> None:
    """Every function is used, nothing is absurd, no line is long."""
    tree = ast.parse(text)
    made = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert {n for n in made - used if n.startswith("_")} == set()
    for absurd in ABSURD:
        assert not re.search(absurd, text, re.M), absurd
    for line in text.splitlines():
        assert len(line) <= WIDTH + 12, line


def lint(folder: Path) -> str:
    """What a linter says of the files in a folder. E741 apart: an axis may be called `l`, and then so are its positions."""
    rules = ["--isolated", "--line-length", "132", "--select", "F,E,W,I,UP,B", "--ignore", "E741"]
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", *rules, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True)
    return "" if run.returncode == 0 else run.stdout[-4000:] + run.stderr
