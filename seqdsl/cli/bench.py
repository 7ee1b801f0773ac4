"""`seqc bench FILE`: every form's module side by side, forward and forward with backward, in one interleaved run.

Times on a shared machine mean little; what is shown is the median, over rounds, of each form's time, and of its ratio
to the recurrent form's in the same round. The recurrent form is a Python loop that can be differentiated.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

from seqdsl import api
from seqdsl.cli.common import console, print_json, programs
from seqdsl.diagnostics import SeqError
from seqdsl.forms import FORMS, derive
from seqdsl.ir.sizes import SizeError, Sizes, bind
from seqdsl.ir.system import System
from seqdsl.verify.inputs import draw_inputs
from seqdsl.verify.modules import module_sizes

LENGTHS = {"h": 4, "c": 256}  # what axes of these names usually are; 64 otherwise
USUAL = 64
LONGEST = 2**20


def run(arguments: argparse.Namespace) -> int:
    """0"""
    import torch

    if not 0 <= arguments.length <= LONGEST or arguments.rounds < 1:
        raise SeqError("bad-setting", f"`--length` is 0 to {LONGEST}, and `--rounds` at least 1")
    torch.set_num_threads(2)
    results = []
    for program in programs(arguments):
        try:
            results.append(_bench(program, arguments))
        except SizeError as error:
            console().print(f"{program.name}: not timed: {error.message}")
    if arguments.json:
        print_json({"machine": machine(), "length": arguments.length, "mixers": results})
    return 0


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    import torch

    return {"machine": platform.machine(), "processor": platform.processor(), "python": platform.python_version(),
            "torch": torch.__version__, "threads": torch.get_num_threads()}  # fmt: skip


def usual_sizes(system: System, length: int, usual: int = USUAL, **named: int) -> Sizes:
    """The lengths that a mixer of this shape is used with; `named` are those of axes of these names."""
    lengths = {n: {**LENGTHS, **named}.get(n, usual) for n, i in system.indices.items() if i.axis == n and i.size is None}
    if system.stream in lengths:
        lengths[system.stream] = length
    return bind(system, {n: 4 for n, d in system.options.items() if d is None}, lengths)


def _bench(program: api.Program, arguments: argparse.Namespace) -> dict[str, Any]:
    system = program.derived("recurrent").system
    sizes = usual_sizes(system, arguments.length)
    tasks: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {}
    for form in FORMS:
        try:
            derived = derive(system, form)
        except SeqError:
            continue
        tasks[form] = _tasks(program, derived.system, form, sizes)
    rows = {name: _interleaved({f: t[k] for f, t in tasks.items()}, arguments.rounds)
            for k, name in enumerate(("forward", "forward+backward"))}  # fmt: skip
    if not arguments.json:
        _print(program.name, sizes, rows)
    return {"mixer": program.name, "sizes": dict(sizes.lengths), "seconds": rows}


def _tasks(
    program: api.Program, system: System, form: str, sizes: Sizes
) -> tuple[Callable[[], None], Callable[[], None]]:
    import numpy as np
    import torch

    backend = api.load_backend("torch")
    text = api.emit(system, program.class_name, backend, form=form)
    module = backend.build_module(text, program.class_name, **module_sizes(system, sizes))
    inputs = []
    for name, array in draw_inputs(system, sizes, np.random.default_rng(0)).items():
        tensor = torch.as_tensor(array)[None]
        tensor = tensor.float() if tensor.dtype == torch.float64 else tensor
        inputs.append(tensor.requires_grad_(tensor.is_floating_point() and system.tensors[name].dtype == "real"))

    def forward() -> None:
        with torch.no_grad():
            module(*inputs)

    def backward() -> None:
        result = module(*inputs)
        total = sum(o.real.sum() for o in (result if isinstance(result, tuple) else (result,)))
        for tensor in inputs:
            tensor.grad = None
        if torch.is_tensor(total) and total.requires_grad:
            total.backward()

    return forward, backward


def _interleaved(tasks: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each task, and the median ratio of the first task's time to its own, round by round."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()  # warm up
    for _ in range(max(1, rounds)):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))
    return {name: {"seconds": statistics.median(own),
                   "speedup": statistics.median(a / b for a, b in zip(first, own, strict=True))}
            for name, own in times.items()}  # fmt: skip


def _print(name: str, sizes: Sizes, rows: dict[str, dict[str, dict[str, float]]]) -> None:
    from rich.table import Table

    table = Table(
        title=f"{name}, " + ", ".join(f"|{n}| {v}" for n, v in sizes.lengths.items() if "." not in n), box=None
    )
    for column in ("form", "forward", "against loop", "forward+backward", "against loop"):
        table.add_column(column, justify="left" if column == "form" else "right")
    for form in rows["forward"]:
        a, b = rows["forward"][form], rows["forward+backward"][form]
        table.add_row(form, f"{a['seconds'] * 1e3:.1f} ms", f"{a['speedup']:.1f} x", f"{b['seconds'] * 1e3:.1f} ms",
                      f"{b['speedup']:.1f} x")  # fmt: skip
    console().print(table)
