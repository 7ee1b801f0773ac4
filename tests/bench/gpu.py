"""Time generated Triton modules on this machine's GPU: `python -m tests.bench.gpu [MIXER ..] [--seconds N]`.

Forward, and forward with backward, of the library's operators in bfloat16 on six shapes that others publish, beside the
same mixer's PyTorch module on the same GPU, PyTorch's own attention, flash-linear-attention where it is installed, and the
copy bandwidth. Medians of CUDA event timings, written to `tests/bench/results/<device>.json` after every row; rows beyond
the time are left out. Every candidate of every mixer runs in a process of its own: one that dies leaves the rest. What
all of them launch is compiled beforehand, on all cores; while one is timed, the next ones are imported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

import seqdsl
from tests.bench import peers

SHAPES = ((1, 8192, 96, 128), (2, 16384, 16, 128), (4, 2048, 16, 128), (4, 4096, 64, 128), (8, 2048, 32, 256), (8, 1024, 8, 64))
SOURCES = {"kda": """
mixer kda(q[t,h,d], k[t,h,d], v[t,h,e], beta[t,h], g[t,h,d]) -> o[t,h,e]:
    P[t,h,d,e] = exp(g) * S[t-1]
    r[t,h,e]   = sum[d] k * P
    S[t,h,d,e] = P + beta * k * (v - r)
    o[t,h,e]   = sum[d] q * S
"""}
FEW = SHAPES[:1] + SHAPES[3:4]  # for what is slow to tune or to run
DEVICE = "cuda"
CANDIDATES = ("triton", "sdpa", "flex", *(["fla"] if find_spec("fla") else []), "torch")
LOOKAHEAD = 4  # processes that import while another is timed, that one counted in
RESULTS = Path(__file__).resolve().parent / "results"
SSM_WIDTH, SSM_STATE = 2048, 16  # mamba: channels and states of each, whatever the heads


def matrix_inputs(gate: str) -> Callable[..., list[Tensor]]:
    """q, k, v and the log decays of each head or key."""
    def inputs(batch: int, length: int, heads: int, width: int) -> list[Tensor]:
        found = [_normal(batch, length, heads, width) for _ in range(3)]
        if gate:
            shape = (batch, length, heads, width)
            found.append(logsigmoid(_normal(*(shape if gate == "key" else shape[:3]))) / 16)
        return found

    return inputs


def delta_inputs(gate: str) -> Callable[..., list[Tensor]]:
    """q, keys of length 1, v, rates, and the log decays of each head or key."""
    def inputs(batch: int, length: int, heads: int, width: int) -> list[Tensor]:
        q, k, v, *decay = matrix_inputs(gate)(batch, length, heads, width)
        return [q, normalize(k, dim=-1), v, _normal(batch, length, heads).sigmoid(), *decay]

    return inputs


def hgrn_inputs(batch: int, length: int, heads: int, width: int) -> list[Tensor]:
    x, f, g = (_normal(batch, length, heads * width) for _ in range(3))
    return [x, f.sigmoid(), g]


def ssm_inputs(batch: int, length: int, heads: int, width: int) -> list[Tensor]:
    x, dt = _normal(batch, length, SSM_WIDTH), _normal(batch, length, SSM_WIDTH).sigmoid() * 0.1
    A = -torch.arange(1.0, SSM_STATE + 1, device=DEVICE).expand(1, SSM_WIDTH, SSM_STATE).bfloat16()
    return [x, dt, A, _normal(batch, length, SSM_STATE), _normal(batch, length, SSM_STATE), _normal(1, SSM_WIDTH)]


MIXERS: dict[str, Callable[..., list[Tensor]]] = {
    "retention": matrix_inputs(""), "simple_gla": matrix_inputs("head"), "gla": matrix_inputs("key"),
    "delta_rule": delta_inputs(""), "gated_delta_rule": delta_inputs("head"), "kda": delta_inputs("key"),
    "hgrn": hgrn_inputs, "selective_scan": ssm_inputs, "softmax": matrix_inputs(""),
}  # fmt: skip


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16)


def median_ms(run: Callable[[], object], seconds: float = 0.1) -> float:
    """The median of single runs, after three that are not counted: as many as fit in the time, 3 to 50.

    Runs are queued one behind the other, as a training step queues them, so that only what the device waits for counts.
    """
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(1 + min(50, max(3, int(seconds / (time.perf_counter() - begin)))))]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in zip(marks, marks[1:], strict=False))


def output(found: Any) -> Tensor:
    """What is read of a state; others return the state beside it."""
    return found[0] if isinstance(found, tuple) else found  # type: ignore[no-any-return]


def timed(run: Callable[..., Any], inputs: list[Tensor]) -> dict[str, Any]:
    """Milliseconds forward without gradients, and forward with backward; peak gigabytes of the latter."""
    try:
        with torch.no_grad():
            y = run(*inputs)
            least = sum(x.numel() * x.element_size() for x in (*inputs, *(y if isinstance(y, tuple) else (y,))) if x is not None)
            del y
            forward = median_ms(lambda: run(*inputs))
        given = [x.detach().requires_grad_() for x in inputs]
        grad = torch.randn_like(output(run(*given)))

        def both() -> None:
            torch.autograd.grad(output(run(*given)), given, grad)

        torch.cuda.reset_peak_memory_stats()
        return {"forward": forward, "both": median_ms(both), "gigabytes": torch.cuda.max_memory_allocated() / 2**30,
                "least GB/s": least / forward / 1e6}  # forward: each input and each output once
    except Exception as error:  # out of memory, or a baseline that fails here: the row says so
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    finally:
        torch.cuda.empty_cache()


def kernels(run: Callable[..., Any], inputs: list[Tensor]) -> dict[str, float]:
    """Milliseconds of each kernel in one forward with backward, longest first."""
    from torch.profiler import ProfilerActivity, profile

    given = [x.detach().requires_grad_() for x in inputs]

    def both() -> None:
        torch.autograd.grad(output(run(*given)).sum(), given)

    both()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        both()
        torch.cuda.synchronize()
    spent = {e.key: e.device_time_total / 1e3 for e in found.key_averages()}
    return dict(sorted(spent.items(), key=lambda item: -item[1])[:16])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    x = torch.empty(2**30, dtype=torch.uint8, device=DEVICE)
    copy = median_ms(lambda: x.clone())
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    product = median_ms(lambda: a @ a)
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__,
            "copy GB/s": 2 * 2**30 / copy / 1e6, "bfloat16 TFLOP/s": 2 * 8192**3 / product / 1e9}


def loaded(name: str, backend: str) -> Any:
    """A module of the library, or of `SOURCES`."""
    program = seqdsl.load("mamba", name) if name == "selective_scan" else seqdsl.load(SOURCES.get(name, name))
    return program.module(backend=backend)


def operator(candidate: str, name: str) -> Callable[..., Any]:
    """What one candidate runs for a mixer."""
    if candidate in ("triton", "torch"):
        return loaded(name, candidate)  # type: ignore[no-any-return]
    return peers.fla_operator(name) if candidate == "fla" else peers.attention_operators(DEVICE)[candidate]


def groups(names: list[str], candidates: list[str]) -> list[tuple[str, str, tuple[tuple[int, ...], ...]]]:
    """(candidate, mixer, shapes): kernels, then peers, of which fla tunes itself for long, then PyTorch."""
    covers = {"sdpa": ["softmax"], "flex": ["softmax"], "fla": list(peers.FLA)}
    return [(candidate, name, FEW if candidate == "torch" else SHAPES)
            for candidate in CANDIDATES if candidate in candidates for name in names if name in covers.get(candidate, names)]


def started(command: list[str]) -> subprocess.Popen[str]:
    """A process that imports what it needs, and then waits for a line on its standard input."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def lines(process: subprocess.Popen[str], seconds: float) -> Iterator[Any]:
    """The JSON that a process prints line by line, as it comes; last its exit status, and why it ended if that is not 0."""
    with process:
        limit = Timer(seconds, process.kill)
        limit.start()
        said = ""
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):  # of one that has ended; its output says why
            process.stdin.write("go\n")
            process.stdin.close()
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
            elif line.strip():
                said = line.strip()
        limit.cancel()
    yield {"status": process.returncode, "said": said}


def apart(run: Callable[..., Any], ours: Callable[..., Any], inputs: list[Tensor]) -> float:
    """The largest relative distance of a peer's output and gradients from ours: who computes something else is no peer."""
    def both(run: Callable[..., Any]) -> list[Tensor]:
        given = [x.detach().requires_grad_() for x in inputs]
        y = output(run(*given))
        grad = torch.randn(y.shape, device=y.device, generator=torch.Generator(y.device).manual_seed(0)).to(y.dtype)
        return [y, *torch.autograd.grad(y, given, grad)]

    pairs = zip(both(run), both(ours), strict=True)
    return max(((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in pairs)


def measure(candidate: str, name: str, shapes: list[tuple[int, ...]]) -> None:
    """Rows of one candidate, in this process, each printed when it is there; begins when a line is there to be read."""
    run = operator(candidate, name)
    ours = operator("triton", name) if candidate in ("fla", "sdpa", "flex") else None
    sys.stdin.readline()
    for shape in shapes:
        torch.manual_seed(0)
        inputs = MIXERS[name](*shape)
        with peers.hastened():
            row = timed(run, inputs)
        if ours is not None and "error" not in row:
            row["apart"] = apart(run, ours, inputs)
        print(json.dumps({"shape": shape, **row}), flush=True)
        torch.cuda.synchronize()  # raises, and ends this process, where a kernel has left the device unusable


def compiled(candidate: str, name: str, shapes: list[tuple[int, ...]], share: int, of: int) -> None:
    """Puts into Triton's cache what one candidate launches: of kernels that are tuned, a share of what they may be."""
    run = operator(candidate, name)
    for shape in shapes:
        inputs = [x.requires_grad_() for x in MIXERS[name](*shape)]
        with peers.compiling(share, of):
            with torch.no_grad():
                run(*inputs)
            torch.autograd.grad(output(run(*inputs)).sum(), inputs)


Wanted = list[tuple[str, str, list[tuple[int, ...]]]]


def command(candidate: str, name: str, shapes: list[tuple[int, ...]], *more: str) -> list[str]:
    numbers = [str(SHAPES.index(s)) for s in shapes]
    return [sys.executable, "-m", "tests.bench.gpu", name, "--only", candidate, "--shapes", *numbers, *more]


def prepare(wanted: Wanted, seconds: float) -> None:
    """Compiles what will be timed, on all cores; what fails here fails again where it is timed, and is reported there."""
    of = {"fla": 3}
    parts = [command(c, name, shapes, "--compile", str(share), str(of.get(c, 1)))
             for c, name, shapes in wanted if shapes and c in ("triton", "fla") for share in range(of.get(c, 1))]
    parts.sort(key=lambda part: "fla" not in part)
    environment = {**os.environ, "FLA_CACHE_RESULTS": "0"}  # which kept what nobody has timed

    def run(part: list[str]) -> None:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(part, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, parts))


def record(path: Path, found: dict[str, Any], wanted: Wanted, seconds: float) -> None:
    """Rows of all groups, each of them in a process of its own; written after every row. The next processes import already."""
    begin = time.perf_counter()
    coming: deque[subprocess.Popen[str]] = deque()
    try:
        for place, (candidate, name, shapes) in enumerate(wanted):
            while len(coming) < LOOKAHEAD and place + len(coming) < len(wanted):
                coming.append(started(command(*wanted[place + len(coming)])))
            left = list(shapes)
            spent = time.perf_counter() - begin
            if spent > seconds:
                print("out of time", flush=True)
                return
            for row in lines(coming.popleft(), max(60.0, seconds - spent)):
                if "status" in row:
                    why = f"the process ended with status {row['status']}: {row['said'][:300]}"
                    ended = [(s, {"error": why}) for s in left] if row["status"] else []
                else:
                    ended = [(tuple(row.pop("shape")), row)]
                for shape, timing in ended:
                    left.remove(shape)
                    found["milliseconds"].setdefault(name, {}).setdefault("x".join(map(str, shape)), {})[candidate] = timing
                    spent = time.perf_counter() - begin
                    print(f"{spent:6.1f} s  {name:16} {shape!s:22} {candidate:7} {json.dumps(timing)}", flush=True)
                    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    finally:
        for process in coming:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mixers", nargs="*", default=list(MIXERS))
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--seconds", type=float, default=150.0, help="rows that would begin later are left out")
    parser.add_argument("--shapes", type=int, nargs="+", default=list(range(len(SHAPES))), help="numbers of shapes, from 0")
    parser.add_argument("--stage", choices=("prepare", "time"), help="only compile, or only time what is compiled already")
    parser.add_argument("--only", help="one candidate, in this process: its rows as lines of JSON")
    parser.add_argument("--compile", type=int, nargs=2, metavar=("SHARE", "OF"), help="with --only: compile, and time nothing")
    parser.add_argument("--kernels", action="store_true", help="with --only: the time of every kernel on the first shape")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this times kernels on a GPU, and PyTorch finds none here")
    shapes = [SHAPES[k] for k in arguments.shapes]
    if arguments.only == "machine":
        print(json.dumps(machine()))
    elif arguments.only:
        for name in arguments.mixers:
            if arguments.kernels:
                run = operator(arguments.only, name)
                print(arguments.only, name, json.dumps(kernels(run, MIXERS[name](*shapes[0])), indent=1), flush=True)
            elif arguments.compile:
                compiled(arguments.only, name, shapes, *arguments.compile)
            else:
                measure(arguments.only, name, shapes)
    else:
        rows = groups(arguments.mixers, arguments.candidates)
        wanted = [(candidate, name, own) for candidate, name, all_own in rows if (own := [s for s in all_own if s in shapes])]
        everything(wanted, arguments.stage, arguments.seconds, arguments.out)


def everything(wanted: Wanted, stage: str | None, seconds: float, out: Path) -> None:
    """Compiles all that is wanted, and times it."""
    begin = time.perf_counter()
    if stage != "time":
        prepare(wanted, seconds)
        print(f"compiled in {time.perf_counter() - begin:.0f} s", flush=True)
    if stage != "prepare":
        facts, *_ = lines(started([sys.executable, "-m", "tests.bench.gpu", "--only", "machine"]), 120.0)
        print(json.dumps(facts), flush=True)
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{facts['device'].replace(' ', '_')}.json"
        record(path, {"machine": facts, "milliseconds": {}}, wanted, seconds)


if __name__ == "__main__":
    main()
