"""Generated modules against what one would write by hand: `python -m tests.bench.compare [results.json]`.

CPU, float32, two threads, B 1, H 4, K and V 64; forward, and forward with backward; interleaved, medians of the rounds'
ratios. Baselines: (a) a differentiable loop over unbind, (b) torch's associative_scan, (c) the naive chunk form of
fla-core, (d) torch's own attention and GRU. One that is not installed is left out, and said so. Never a test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import seqdsl
from tests.bench import baselines
from tests.bench.timing import fit_exponent, interleaved, machine_facts

Run = Callable[..., Any]


def linear_inputs(length: int, gates: int) -> list[Tensor]:
    """q, k, v and log decays [1, T, 4, 64 or none]."""
    q, k, v = (torch.randn(1, length, 4, 64) for _ in range(3))
    g = -torch.rand(1, length, 4, gates) if gates else -torch.rand(1, length, 4)
    return [q / 8, k, v, g]


def tasks(inputs: list[Tensor], runs: dict[str, Run], *, backward: bool) -> dict[str, Callable[[], object]]:
    """Each run on the same inputs, with or without gradients for all of them."""

    def task(run: Run) -> Callable[[], object]:
        def go() -> object:
            own = [x.detach().requires_grad_(backward) for x in inputs]
            with torch.set_grad_enabled(backward):
                found = run(*own)
                found = found[0] if isinstance(found, tuple) else found
            if backward:
                found.sum().backward()
            return found

        return go

    return {name: task(run) for name, run in runs.items()}


def cases() -> list[tuple[str, list[Tensor], dict[str, Run]]]:
    """(what, inputs, runs): the first run is ours."""
    simple = seqdsl.load("simple_gla", "simple_gla").module("chunkwise")
    gla = seqdsl.load("gla", "gla").module("chunkwise")
    text = "mixer diagonal(a[t,c], b[t,c]) -> h[t,c]:\n    h[t,c] = a * h[t-1] + b\n"
    diagonal = seqdsl.load(text).module("scan")
    found: list[tuple[str, list[Tensor], dict[str, Run]]] = []
    for length in (2048, 8192):
        runs: dict[str, Run] = {"seqdsl": simple, "loop": baselines.simple_gla_loop}
        try:
            naive = baselines.naive_simple_gla()
            runs["fla naive chunk"] = lambda q, k, v, g, f=naive: f(q, k, v, g, scale=1.0)
        except baselines.Missing as missing:
            print(f"left out: {missing}", file=sys.stderr)
        found.append((f"simple_gla T{length}", linear_inputs(length, 0), runs))
        found.append((f"gla T{length}", linear_inputs(length, 64), {"seqdsl": gla, "loop": baselines.gla_loop}))
    for shape in ((8, 1024, 256), (1, 4096, 1024)):
        inputs = [torch.rand(shape), torch.randn(shape)]
        runs = {
            "seqdsl": diagonal,
            "associative_scan": baselines.diagonal_associative_scan,
            "loop": baselines.diagonal_loop,
        }
        found.append((f"diagonal {'x'.join(map(str, shape))}", inputs, runs))
    return found


def linearity() -> dict[str, float]:
    """The exponent of time in T, fitted from 1k to 64k, forward."""
    gla = seqdsl.load("gla", "gla").module("chunkwise")
    lengths = [1024, 4096, 16384, 65536]
    seconds = []
    for length in lengths:
        inputs = linear_inputs(length, 64)
        timing = interleaved(tasks(inputs, {"seqdsl": gla}, backward=False), rounds=3)
        seconds.append(timing.medians()["seqdsl"])
    return {"gla forward, exponent of T": fit_exponent(lengths, seconds)}


def main() -> None:
    """The table, and JSON with the machine's facts where a path is given."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    table = Table(box=None)
    for column in ("case", "what", "ours, ms", "against", "times faster"):
        table.add_column(column)
    for name, inputs, runs in cases():
        for backward in (False, True):
            timing = interleaved(tasks(inputs, runs, backward=backward), rounds=5)
            what = "forward+backward" if backward else "forward"
            for other in [r for r in runs if r != "seqdsl"]:
                ratio, ours = timing.ratio(other, "seqdsl"), timing.medians()["seqdsl"] * 1e3
                rows.append({"case": name, "what": what, "against": other, "ratio": ratio, "ms": ours})
                table.add_row(name, what, f"{ours:.1f}", other, f"{ratio:.1f}")
    exponents = linearity()
    Console().print(table)
    print(exponents)
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump({"machine": machine_facts(), "rows": rows, **exponents}, file, indent=1)


if __name__ == "__main__":
    main()
