"""Parts of these tests that run in a process of their own, as programs: triton decides when it is imported whether it
interprets. What they print is one JSON value a line.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
Rows = dict[str, dict[str, Any]]


def interpret_in(module: str) -> dict[str, Any]:
    """The pairs of a name and what was found that a module of these tests prints, run as a program that interprets, by way
    of this one."""
    return dict(_printed(["processes", module], {**os.environ, "TRITON_INTERPRET": "1"}))


def compile_in(module: str, *arguments: str) -> Rows:
    """The rows that a module of these tests prints, run as a program that compiles."""
    return {row.pop("name"): row for row in rows_in(module, *arguments)}


def rows_in(module: str, *arguments: str) -> list[dict[str, Any]]:
    """The same where rows have no name."""
    return _printed([module, *arguments], compiling())


def compiling() -> dict[str, str]:
    """The environment of a process that compiles."""
    own = {"TRITON_DEFAULT_FP_FUSION": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | own


def _printed(arguments: list[str], environment: Mapping[str, str]) -> list[Any]:
    command = [sys.executable, "-m", f"tests.backends.triton_kernel.{arguments[0]}", *arguments[1:]]
    own = {**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(map(json.loads, done.stdout.splitlines()))


def _patched_once() -> None:
    """Triton's interpreter patches its language anew for each launch, and for each call of a function within a kernel, which
    takes longer than many a kernel: here once, for as long as the process lives."""
    from types import SimpleNamespace

    import triton.language as tl
    from triton.runtime import interpreter

    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    interpreter._patch_lang = lambda function: SimpleNamespace(restore=lambda: None)


if __name__ == "__main__":
    gc.set_threshold(50_000, 20, 20)
    _patched_once()
    sys.argv = sys.argv[1:]
    runpy.run_module(f"tests.backends.triton_kernel.{sys.argv[0]}", run_name="__main__", alter_sys=True)
