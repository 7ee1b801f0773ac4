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
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
Rows = dict[str, dict[str, Any]]


def interpret_in(module: str, *arguments: str) -> dict[str, Any]:
    """The pairs of a name and what was found that a module of these tests prints, run as a program that interprets, by way
    of this one."""
    return dict(_printed(["processes", module, *arguments], {**os.environ, "TRITON_INTERPRET": "1"}))


def each(names: Iterable[str], deep: Collection[str]) -> list[Any]:
    """The names of cases, some of which are run under `--deep` alone: they are much like others."""
    return [pytest.param(name, marks=pytest.mark.deep) if name in deep else name for name in names]


def in_pieces(text: ModuleType, pieces: int, piece: int) -> ModuleType:
    """A file of kernels that cuts time into pieces of so many steps at least, solves as many side by side, and, interpreted,
    takes small chunks of affine recurrences."""
    vars(text).update(NEWTON_PIECES=pieces, RECURRENCE_PIECE=piece)
    if os.environ.get("TRITON_INTERPRET"):
        vars(text)["AFFINE_ROWS"] = 2
    return text


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


def _kept_within() -> None:
    """From here on a launch may load from and store to nothing but the memory of the tensors that it was given: an address
    outside all of them is an error, whatever lies there."""
    import numpy as np
    from triton.runtime import interpreter

    builder, convert = interpreter.InterpreterBuilder, interpreter.GridExecutor._init_args_hst
    load, store = builder.create_masked_load, builder.create_masked_store
    given: list[Any] = [None]

    def check(what: str, pointers: Any, mask: Any) -> None:
        size = np.uint64(pointers.get_element_ty().primitive_bitwidth + 7 >> 3)
        at = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)]
        first, end = given[0]
        place = np.searchsorted(first, at, "right") - 1
        if not ((place >= 0) & (at + size <= end[place])).all():
            raise IndexError(f"a kernel {what} outside the tensors that it was given")

    def checked_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        check("loads", pointers, mask)
        return load(self, pointers, mask, *rest)

    def checked_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        check("stores", pointers, mask)
        return store(self, pointers, value, mask, *rest)

    def noted(self: Any, arguments: Any, named: Any) -> Any:
        given[0] = _places([x for x in (*arguments, *named.values()) if hasattr(x, "data_ptr") and x.numel()])
        return convert(self, arguments, named)

    builder.create_masked_load, builder.create_masked_store = checked_load, checked_store
    interpreter.GridExecutor._init_args_hst = noted


def unless_stopped(run: Callable[[], list[float]]) -> list[float]:
    """The errors of a kernel in which something is wrong: without end where it reaches outside its tensors."""
    from triton.runtime.errors import InterpreterError

    try:
        return run()
    except InterpreterError:
        return [float("inf")]


def _places(tensors: list[Any]) -> tuple[Any, Any]:
    """Where the memory of tensors begins and where it ends, in rising order: all of it, for what goes backwards in time is
    given the last position first."""
    import numpy as np

    memory = sorted({(x.data_ptr(), x.data_ptr() + x.nbytes()) for x in (x.untyped_storage() for x in tensors)})
    first, end = zip(*memory, strict=True)
    return np.array(first, dtype=np.uint64), np.array(end, dtype=np.uint64)


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
    _kept_within()
    sys.argv = sys.argv[1:]
    runpy.run_module(f"tests.backends.triton_kernel.{sys.argv[0]}", run_name="__main__", alter_sys=True)
