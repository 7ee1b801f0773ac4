"""Timing on a shared machine: only ratios inside one interleaved run are claimed, never single milliseconds.

Entry points: `interleaved`, `fit_exponent`, `peak_memory`, `machine_facts`. Nothing here knows what it times.
"""

from __future__ import annotations

import math
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

BLOCK = 0.02  # seconds


@dataclass(frozen=True)
class Timing:
    """Seconds of every round, by candidate."""

    seconds: dict[str, list[float]]

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(rounds) for name, rounds in self.seconds.items()}

    def ratios(self, slow: str, fast: str) -> list[float]:
        """How many times faster `fast` was than `slow`, round by round."""
        return [a / b for a, b in zip(self.seconds[slow], self.seconds[fast], strict=True)]

    def ratio(self, slow: str, fast: str) -> float:
        """The median of `ratios`: the number to quote."""
        return statistics.median(self.ratios(slow, fast))


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int = 7) -> Timing:
    """Run the candidates in turn, round after round, after an untimed run of each; a short one is run `BLOCK` seconds
    long in its turn, and its mean is what counts: alone, a millisecond is mostly what the one before has left in the caches.

    Each round has another order: what runs after one that has filled memory with garbage is slower.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    counts = {}
    for name, run in candidates.items():
        first = _seconds(run)
        counts[name] = 1 if first > 50 * BLOCK else math.ceil(BLOCK / _seconds(run))
    draw = random.Random(0)
    for _ in range(rounds):
        for name, run in draw.sample(list(candidates.items()), len(candidates)):
            seconds[name].append(_seconds(run, counts[name]))
    return Timing(seconds)


def _seconds(run: Callable[[], object], count: int = 1) -> float:
    """The mean of so many runs."""
    begin = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - begin) / count


def fit_exponent(ts: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log(seconds) over log(T) by least squares: 1 is linear, 2 quadratic."""
    x, y = [math.log(t) for t in ts], [math.log(s) for s in seconds]
    x_mean, y_mean = statistics.fmean(x), statistics.fmean(y)
    covariance = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - x_mean) ** 2 for a in x)


_MEASURE = """
import importlib, pathlib, resource, sys

status, clear = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def kilobytes(field):
    return int(next(line for line in status.read_text().splitlines() if line.startswith(field)).split()[1])


run = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(*map(int, sys.argv[3:]))
if clear.exists():  # the peak that getrusage knows begins with that of the parent
    clear.write_text("5")
    before = kilobytes("VmRSS")
    run()
    print((kilobytes("VmHWM") - before) * 1024)
else:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024))
"""


def peak_memory(prepare: Callable[..., Callable[[], object]], *sizes: int) -> int:
    """Bytes by which running `prepare(*sizes)()` raises the peak of a fresh process.

    `prepare` is a function at the top level of a module; it makes the inputs and returns what is to be measured.
    """
    command = [sys.executable, "-c", _MEASURE, prepare.__module__, prepare.__name__, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return int(done.stdout)


def machine_facts() -> dict[str, str | int]:
    """What a number was measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "cpu": model,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peak_rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
