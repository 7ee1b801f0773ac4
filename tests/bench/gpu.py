"""Time generated Triton modules on this machine's GPU: `python -m tests.bench.gpu [--fla] [--seconds N]`.

Forward, and forward with backward, of the library's operators in bfloat16 on six shapes that others publish, beside the
same mixer's PyTorch module on the same GPU, PyTorch's own attention, flash-linear-attention where it is installed, and the
copy bandwidth. Medians of CUDA event timings, written to `tests/bench/results/<device>.json` after every row; rows beyond
the time are left out. Every candidate of every mixer runs in a process of its own: one that dies leaves the rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

import seqdsl

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


# What flash-linear-attention calls our inputs, in our order: its own differs from operator to operator.
FLA = {
    "retention": "q k v", "simple_gla": "q k v g", "gla": "q k v g", "delta_rule": "q k v beta",
    "gated_delta_rule": "q k v beta g", "kda": "q k v beta g", "hgrn": "x g",
}  # fmt: skip


def fla_operator(name: str) -> Callable[..., Any]:
    """The same operator of flash-linear-attention. Raises whatever a version of it raises under a version of Triton."""
    run, names = getattr(__import__(f"fla.ops.{name}", fromlist=["chunk"]), f"chunk_{name}"), FLA[name].split()
    if name == "hgrn":  # which has the input gate and the output gate outside
        return lambda x, f, g: run(x=(1 - f) * x, g=f.log())[0] * g
    return lambda *inputs: run(**dict(zip(names, inputs, strict=True)))


def attention_operators() -> dict[str, Callable[..., Any]]:
    """Causal softmax attention of PyTorch: what it picks itself, and FlexAttention, compiled for each shape."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    from torch.nn.functional import scaled_dot_product_attention

    compiled: dict[torch.Size, tuple[Any, Any]] = {}

    def sdpa(*qkv: Tensor) -> Tensor:
        found: Tensor = scaled_dot_product_attention(*(x.transpose(1, 2) for x in qkv), is_causal=True).transpose(1, 2)
        return found

    def flex(*qkv: Tensor) -> Tensor:
        shape = qkv[0].shape
        if shape not in compiled:
            torch._dynamo.reset()  # it stops compiling after a few shapes
            mask = create_block_mask(lambda b, h, t, s: s <= t, None, None, shape[1], shape[1], device=DEVICE)
            compiled[shape] = torch.compile(flex_attention, dynamic=False), mask
        run, mask = compiled[shape]
        found: Tensor = run(*(x.transpose(1, 2) for x in qkv), block_mask=mask).transpose(1, 2)
        return found

    return {"sdpa": sdpa, "flex": flex}


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


def timed(run: Callable[..., Any], inputs: list[Tensor]) -> dict[str, Any]:
    """Milliseconds forward without gradients, and forward with backward; peak gigabytes of the latter."""
    try:
        with torch.no_grad():
            y = run(*inputs)
            least = sum(x.numel() * x.element_size() for x in (*inputs, *(y if isinstance(y, tuple) else (y,))) if x is not None)
            del y
            forward = median_ms(lambda: run(*inputs))
        given = [x.detach().requires_grad_() for x in inputs]
        y = run(*given)
        grad = torch.randn_like(y[0] if isinstance(y, tuple) else y)
        del y

        def both() -> None:
            y = run(*given)
            torch.autograd.grad(y[0] if isinstance(y, tuple) else y, given, grad)

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
        torch.autograd.grad(run(*given).sum(), given)

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
    return fla_operator(name) if candidate == "fla" else attention_operators()[candidate]


def groups(names: list[str], fla: bool) -> list[tuple[str, str, tuple[tuple[int, ...], ...]]]:
    """(candidate, mixer, shapes): kernels, then peers, of which fla tunes itself for long, then PyTorch."""
    found = [("triton", name, SHAPES) for name in names]
    found += [(peer, "softmax", SHAPES) for peer in ("sdpa", "flex") if "softmax" in names]
    found += [("fla", name, SHAPES) for name in names if fla and name in FLA]
    return found + [("torch", name, FEW) for name in names]


def lines(command: list[str], seconds: float) -> Iterator[Any]:
    """The JSON that a process prints line by line, as it comes; last its exit status, and why it ended if that is not 0."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        limit = Timer(seconds, process.kill)
        limit.start()
        said = ""
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
            elif line.strip():
                said = line.strip()
        limit.cancel()
    yield {"status": process.returncode, "said": said}


def measure(candidate: str, name: str, shapes: list[tuple[int, ...]]) -> None:
    """Rows of one candidate, in this process, each printed when it is there."""
    run = operator(candidate, name)
    for shape in shapes:
        torch.manual_seed(0)
        print(json.dumps({"shape": shape, **timed(run, MIXERS[name](*shape))}), flush=True)
        torch.cuda.synchronize()  # raises, and ends this process, where a kernel has left the device unusable


def record(path: Path, found: dict[str, Any], wanted: list[tuple[str, str, list[tuple[int, ...]]]], seconds: float) -> None:
    """Rows of all groups, each of them in a process of its own; written after every row."""
    begin = time.perf_counter()
    for candidate, name, shapes in wanted:
        left = list(shapes)
        spent = time.perf_counter() - begin
        if spent > seconds:
            print("out of time", flush=True)
            return
        numbers = [str(SHAPES.index(s)) for s in shapes]
        command = [sys.executable, "-m", "tests.bench.gpu", name, "--only", candidate, "--shapes", *numbers]
        for row in lines(command, max(60.0, seconds - spent)):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mixers", nargs="*", default=list(MIXERS))
    parser.add_argument("--fla", action="store_true", help="flash-linear-attention too, where it can be imported")
    parser.add_argument("--seconds", type=float, default=150.0, help="rows that would begin later are left out")
    parser.add_argument("--shapes", type=int, nargs="+", default=list(range(len(SHAPES))), help="numbers of shapes, from 0")
    parser.add_argument("--kernels", action="store_true", help="only the time of every kernel on the first shape")
    parser.add_argument("--only", help="one candidate, in this process: its rows as lines of JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this times kernels on a GPU, and PyTorch finds none here")
    shapes = [SHAPES[k] for k in arguments.shapes]
    if arguments.only == "machine":
        print(json.dumps(machine()))
        return
    for name in arguments.mixers if arguments.only or arguments.kernels else ():
        if arguments.kernels:
            print(name, json.dumps(kernels(loaded(name, "triton"), MIXERS[name](*SHAPES[0])), indent=1), flush=True)
        else:
            measure(arguments.only, name, shapes)
    if arguments.only or arguments.kernels:
        return
    facts, *_ = lines([sys.executable, "-m", "tests.bench.gpu", "--only", "machine"], 120.0)
    print(json.dumps(facts), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = groups(arguments.mixers, arguments.fla)
    wanted = [(candidate, name, [s for s in own if s in shapes]) for candidate, name, own in rows]
    path = arguments.out / f"{facts['device'].replace(' ', '_')}.json"
    record(path, {"machine": facts, "milliseconds": {}}, wanted, arguments.seconds)


if __name__ == "__main__":
    main()
