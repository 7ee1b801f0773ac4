"""Generated modules against what one would write by hand: `python -m tests.bench.compare [results.json]`.

CPU, float32, two threads, B 1, H 4, K and V 64 but for the entrywise ones; forward, and forward with backward;
interleaved, medians of the rounds' ratios over three processes of each case's own. Baselines: (a) a differentiable loop over
unbind, (b) torch's associative_scan, (c) the naive chunk forms of fla-core, (d) torch's own attention and GRU, where they
compute the same. One that is not installed is left out, and said so. Never a test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import seqdsl
from tests.bench import baselines
from tests.bench.memory import gla_both, gla_both_by_autograd, gla_forward
from tests.bench.timing import Timing, fit_exponent, interleaved, machine_facts, peak_memory

Run = Callable[..., Any]
# gla's neighbour that no paper has: it forgets by the columns of the state.
COLUMNS = """mixer columns(q[t,h,d], k[t,h,d], v[t,h,e], g[t,h,e]) -> o[t,h,e]:
    S[t,h,d,e] = exp(g) * S[t-1] + k * v
    o[t,h,e]   = sum[d] q * S / sqrt(|d|)
"""
DIAGONAL = "mixer diagonal(a[t,c], b[t,c]) -> h[t,c]:\n    h[t,c] = a * h[t-1] + b\n"
GRID = (
    "mixer grid(x[i,j,c], a[i,j,c], b[i,j,c]) -> y[i,j,c]:\n"
    "    y[i,j,c] = a * y[i-1] + b * y[i,j-1] + x\n"
)
# What para_gru does once all inputs are projected.
CELL = """mixer cell(z[t,n], r[t,n], g[t,n], u[n], v[n], w[n]) -> h[t,n]:
    a[t,n] = sigmoid(z + u * h[t-1])
    b[t,n] = sigmoid(r + v * h[t-1])
    c[t,n] = tanh(g + w * b * h[t-1])
    h[t,n] = (1 - a) * h[t-1] + a * c
"""
# Where a process's heap begins decides whether a large output is memory that it already holds, or 4 KiB pages that the
# kernel must fetch one by one: that doubles or halves a scan's time, for all rounds of the process.
PROCESSES = 3
ROUNDS = 5  # in each of them


@dataclass(frozen=True)
class Case:
    """What is timed: the first run is ours."""

    name: str
    inputs: list[Tensor]
    runs: dict[str, Run]


def linear_inputs(length: int, gates: int) -> list[Tensor]:
    """q, k, v and log decays [1, T, 4, 64 or none]."""
    q, k, v = (torch.randn(1, length, 4, 64) for _ in range(3))
    g = -torch.rand(1, length, 4, gates) if gates else -torch.rand(1, length, 4)
    return [q, k, v, g]


def delta_inputs(length: int) -> list[Tensor]:
    """q, normalised k, v, beta and the log decay [1, T, 4, 64 or none]."""
    q, k, v, g = linear_inputs(length, 0)
    return [q, torch.nn.functional.normalize(k, dim=-1), v, torch.rand(1, length, 4), g]


def scaled(run: Run) -> Run:
    """A run that leaves out the 1 / sqrt(|d|) of the equations, given it."""
    return lambda q, *rest: run(q / 8, *rest)


def with_naive(runs: dict[str, Run], naive: Callable[[], Run], call: Callable[[Run], Run]) -> dict[str, Run]:
    """The runs, and fla-core's where it is installed."""
    try:
        return {**runs, "fla naive chunk": call(naive())}
    except baselines.Missing as missing:
        print(f"left out: {missing}", file=sys.stderr)
        return runs


def simple_gla_case(length: int) -> Case:
    """One log decay per head; the naive chunk form leaves out the scale of the equations."""
    ours = seqdsl.load("simple_gla", "simple_gla").module("chunkwise")
    runs: dict[str, Run] = {"seqdsl": ours, "loop": scaled(baselines.simple_gla_loop)}
    runs = with_naive(runs, baselines.naive_simple_gla, lambda f: lambda *x: f(*x, scale=1 / 8))
    return Case(f"simple_gla T{length}", linear_inputs(length, 0), runs)


def gla_case(length: int) -> Case:
    """One log decay per key channel."""
    gla = seqdsl.load("gla", "gla").module("chunkwise")
    runs: dict[str, Run] = {"seqdsl": gla, "loop": scaled(baselines.gla_loop)}
    return Case(f"gla T{length}", linear_inputs(length, 64), runs)


def columns_case() -> Case:
    """gla's neighbour, against gla itself."""
    gla = seqdsl.load("gla", "gla").module("chunkwise")
    runs: dict[str, Run] = {"seqdsl": seqdsl.load(COLUMNS).module("chunkwise"), "gla": gla}
    return Case("gla by columns T2048", linear_inputs(2048, 64), runs)


def gated_delta_case() -> Case:
    """The gated delta rule, its keys of length 1."""
    ours = seqdsl.load("gated_delta_rule", "gated_delta_rule").module("chunkwise")
    runs: dict[str, Run] = {"seqdsl": ours, "loop": baselines.gated_delta_loop}
    runs = with_naive(
        runs, baselines.naive_gated_delta_rule, lambda f: lambda q, k, v, b, g: f(q, k, v, g=g, beta=b, scale=1.0)
    )
    return Case("gated_delta_rule T2048", delta_inputs(2048), runs)


def diagonal_case(*shape: int) -> Case:
    """A state that is an entry, [B, T, C]."""
    runs = {
        "seqdsl": seqdsl.load(DIAGONAL).module("scan"),
        "associative_scan": baselines.diagonal_associative_scan,
        "loop": baselines.diagonal_loop,
    }
    return Case(f"diagonal {'x'.join(map(str, shape))}", [torch.rand(shape), torch.randn(shape)], runs)


def grid_case() -> Case:
    """64 channels over 64 x 64 cells, [B, I, J, C]."""
    inputs = [torch.randn(1, 64, 64, 64), *(torch.rand(1, 64, 64, 64) / 2 for _ in "ab")]
    return Case("grid 64x64x64", inputs, {"seqdsl": seqdsl.load(GRID).module("wavefront"), "loop": baselines.grid_loop})


def attention_case() -> Case:
    """Causal softmax attention, [B, T, H, D]."""
    runs: dict[str, Run] = {"seqdsl": seqdsl.load("softmax", "attention").module("auto"), "torch SDPA": baselines.attention}
    return Case("attention T2048", [torch.randn(1, 2048, 4, 64) for _ in range(3)], runs)


def selective_scan_case() -> Case:
    """Mamba's scan, 256 channels with 16 states each."""
    x, dt = torch.randn(1, 2048, 256), torch.rand(1, 2048, 256)
    inputs = [x, dt, -torch.rand(1, 256, 16), torch.randn(1, 2048, 16), torch.randn(1, 2048, 16), torch.randn(1, 256)]
    ours = seqdsl.load("mamba", "selective_scan").module("auto")
    return Case("selective_scan T2048", inputs, {"seqdsl": ours, "loop": baselines.selective_scan_loop})


def s4d_case() -> Case:
    """S4D as one long convolution, and the loop over its complex states, with the same parameters."""
    ours = seqdsl.load("s4d", "s4d").module("convolution", c=256)

    def loop(u: Tensor) -> Tensor:
        A = -ours.re_log.exp() + 1j * ours.omega
        a = (ours.log_dt.exp().unsqueeze(-1) * A).exp()
        return baselines.s4d_loop(u, a, (a - 1) / A, ours.C, ours.D)

    return Case("s4d T2048", [torch.randn(1, 2048, 256)], {"seqdsl": ours, "loop": loop})


def s4_case(length: int) -> Case:
    """S4, whose matrix is diagonal plus rank one: its kernel by powers, and the loop over its equations."""
    ours = seqdsl.load("s4", "s4").module("convolution")
    n = torch.arange(64)
    lam = (-0.5 + 1j * 64 / torch.pi * (64 / (n // 2 * 2 + 1) - 1) * (1 - 2 * (n % 2)))[None].to(torch.complex64)
    P, B = (torch.randn(1, 64, dtype=torch.complex64) for _ in "PB")
    C = torch.randn(1, 64, 64, dtype=torch.complex64) / 8
    inputs = [torch.randn(1, length, 64), lam, P, B, C, torch.rand(1, 64) * 0.1 + 0.001]
    return Case(f"s4 T{length}", inputs, {"seqdsl": ours, "loop": baselines.s4_loop})


def lmu_case(width: int) -> Case:
    """A Legendre memory of one signal, and the loop over its matrix."""
    ours = seqdsl.load("lmu", "lmu").module("convolution", N=width, theta=2048)
    a, b = baselines.lmu_matrices(width, 2048)
    runs = {"seqdsl": ours, "loop": lambda u: baselines.lmu_loop(u, a, b)}
    return Case(f"lmu T2048 N{width}", [torch.randn(1, 2048)], runs)


def para_gru_case() -> Case:
    """A nonlinear recurrence by Newton's method, and its loop, with the same parameters; both project all inputs first."""
    ours = seqdsl.load("para_gru", "para_gru").module("newton", c=256, N=256)

    def loop(x: Tensor) -> Tensor:
        gates = [x @ gate.weight + gate.bias for gate in (ours.z, ours.r, ours.g)]
        return baselines.para_gru_loop(*gates, ours.u, ours.v, ours.w)

    return Case("para_gru T4096", [torch.randn(1, 4096, 256)], {"seqdsl": ours, "loop": loop})


def cell_case() -> Case:
    """Its recurrence alone, and the loop over it."""
    inputs = [*(torch.randn(1, 4096, 256) for _ in "zrg"), *(torch.randn(1, 256) for _ in "uvw")]
    runs: dict[str, Run] = {"seqdsl": seqdsl.load(CELL).module("newton"), "loop": baselines.para_gru_loop}
    return Case("para_gru projected T4096", inputs, runs)


def fft_case() -> Case:
    """A convolution as long as the sequence, [B, T, C] for both."""
    ours = seqdsl.load("long_conv", "long_conv").module("auto")
    runs: dict[str, Run] = {
        "seqdsl": ours,
        "plain rfft": lambda x, w: baselines.plain_fft_conv(x.mT, w.mT).mT,
    }
    return Case("long_conv 2x8192x256", [torch.randn(2, 8192, 256), torch.randn(1, 8192, 256) / 64], runs)


def gru_case() -> Case:
    """The GRU layer with the weights of torch.nn.GRU; ours steps through time in Python, torch's in C++."""
    width = 256
    ours, theirs = seqdsl.load("gru", "gru").module("recurrent", c=width, N=width), baselines.gru(width)
    weights = theirs.state_dict()
    for n, gate in enumerate("rzg"):
        part = slice(n * width, (n + 1) * width)
        for suffix, kind in (("", "ih"), ("_2", "hh")):
            own = {
                f"{gate}{suffix}.weight": weights[f"weight_{kind}_l0"][part].T,
                f"{gate}{suffix}.bias": weights[f"bias_{kind}_l0"][part],
            }
            ours.load_state_dict(own, strict=False)
    return Case("gru T512", [torch.randn(4, 512, width)], {"seqdsl": ours, "torch.nn.GRU": theirs})


def tasks(case: Case, *, backward: bool) -> dict[str, Callable[[], object]]:
    """Each run on the same inputs, with or without gradients for all of them."""

    def task(run: Run) -> Callable[[], object]:
        def go() -> object:
            own = [x.detach().requires_grad_(backward) for x in case.inputs]
            with torch.set_grad_enabled(backward):
                found = run(*own)
                found = found[0] if isinstance(found, tuple) else found
            if backward:
                found.sum().backward()
            return found

        return go

    return {name: task(run) for name, run in case.runs.items()}


Row = tuple[str, str, str]  # of the table: the case, the direction, what it is measured against


def measured(case: Case) -> dict[Row, Timing]:
    """The rounds of each baseline and direction; each baseline is interleaved with ours alone, so that none pays for the
    memory that another one has left behind."""
    found = {}
    for backward in (False, True):
        runs = tasks(case, backward=backward)
        for other in [r for r in case.runs if r != "seqdsl"]:
            timing = interleaved({"seqdsl": runs["seqdsl"], other: runs[other]}, rounds=ROUNDS)
            found[case.name, "forward+backward" if backward else "forward", other] = timing
    return found


def summed_up(row: Row, timings: Sequence[Timing]) -> dict[str, Any]:
    """The medians over all rounds of all processes."""
    case, what, other = row
    timing = Timing({name: [s for each in timings for s in each.seconds[name]] for name in ("seqdsl", other)})
    ms, ratio = timing.medians()["seqdsl"] * 1e3, timing.ratio(other, "seqdsl")
    return {"case": case, "what": what, "ms": ms, "against": other, "ratio": ratio}


def growth() -> dict[str, float]:
    """The exponents of time (1k to 64k) and of peak memory (16k to 64k) in T, gla forward."""
    lengths = [1024, 4096, 16384, 65536]
    gla = seqdsl.load("gla", "gla").module("chunkwise")
    seconds = []
    for length in lengths:
        case = Case("", linear_inputs(length, 64), {"seqdsl": gla})
        seconds.append(interleaved(tasks(case, backward=False), rounds=3).medians()["seqdsl"])
    long = [16384, 32768, 65536]
    memory = [float(peak_memory(gla_forward, length)) for length in long]
    return {
        "time of gla forward, exponent of T": fit_exponent(lengths, seconds),
        "peak memory of gla forward, exponent of T": fit_exponent(long, memory),
    }


def memory() -> dict[str, float]:
    """Peak memory of gla forward and backward over 16k positions, of that of a plain chunk form under autograd: so long a
    sequence is worked on in segments of time, each computed again for its backward."""
    ratio = peak_memory(gla_both, 16384) / peak_memory(gla_both_by_autograd, 16384)
    return {"peak memory of gla forward+backward, of autograd's": ratio}


CASES: list[Callable[[], Case]] = [
    partial(simple_gla_case, 2048),
    partial(gla_case, 2048),
    partial(simple_gla_case, 8192),
    partial(gla_case, 8192),
    gated_delta_case,
    partial(diagonal_case, 8, 1024, 256),
    partial(diagonal_case, 1, 4096, 1024),
    grid_case,
    attention_case,
    gru_case,
    columns_case,
    partial(gla_case, 16384),
    selective_scan_case,
    s4d_case,
    partial(s4_case, 2048),
    partial(s4_case, 8192),
    partial(lmu_case, 8),
    partial(lmu_case, 64),
    para_gru_case,
    cell_case,
    fft_case,
]


def alone(case: Callable[[], Case]) -> dict[Row, Timing]:
    """What is measured of a case; to be run in a process of its own."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    return measured(case())


def main() -> None:
    """The table, and JSON with the machine's facts where a path is given."""
    torch.set_num_threads(2)
    # What a case costs depends on the heap that the ones before it leave behind: none shares a process with another.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        runs = [case for case in CASES for _ in range(PROCESSES)]
        found = list(track(processes.map(alone, runs), "timing", total=len(runs), transient=True))
    cases = zip(*[iter(found)] * PROCESSES, strict=True)  # the processes of a case, case by case
    rows = [summed_up(row, [each[row] for each in case]) for case in cases for row in case[0]]
    table = Table(box=None, min_width=100)
    for column in ("case", "what", "ours, ms", "against", "times faster"):
        table.add_column(column, justify="right" if column in ("ours, ms", "times faster") else "left")
    for row in rows:
        table.add_row(row["case"], row["what"], f"{row['ms']:.1f}", row["against"], f"{row['ratio']:.2f}")
    Console().print(table)
    figures = {**growth(), **memory()}
    for name, value in figures.items():
        print(f"{name}: {value:.2f}")
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump({"machine": machine_facts(), "rows": rows, **figures}, file, indent=1)


if __name__ == "__main__":
    main()
