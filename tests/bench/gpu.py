"""Time generated Triton modules on this machine's GPU: `python -m tests.bench.gpu [--fla] [--seconds N]`.

Forward, and forward with backward, of the library's operators in bfloat16 on six shapes that others publish, beside the
same mixer's PyTorch module on the same GPU, PyTorch's own attention, flash-linear-attention where it is installed, and the
copy bandwidth. Medians of CUDA event timings, written to `tests/bench/results/<device>.json` after every row; rows beyond
the time are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
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
    A = -torch.arange(1.0, SSM_STATE + 1, device="cuda").expand(1, SSM_WIDTH, SSM_STATE).bfloat16()
    return [x, dt, A, _normal(batch, length, SSM_STATE), _normal(batch, length, SSM_STATE), _normal(1, SSM_WIDTH)]


MIXERS: dict[str, Callable[..., list[Tensor]]] = {
    "retention": matrix_inputs(""), "simple_gla": matrix_inputs("head"), "gla": matrix_inputs("key"),
    "delta_rule": delta_inputs(""), "gated_delta_rule": delta_inputs("head"), "kda": delta_inputs("key"),
    "hgrn": hgrn_inputs, "selective_scan": ssm_inputs, "softmax": matrix_inputs(""),
}  # fmt: skip


def fla_operators() -> dict[str, Callable[..., Any]]:
    """The same operators of flash-linear-attention; those that do not import are left out."""
    found: dict[str, Callable[..., Any]] = {}
    for name in ("retention", "simple_gla", "gla", "delta_rule", "gated_delta_rule", "kda"):
        try:
            found[name] = getattr(__import__(f"fla.ops.{name}", fromlist=["chunk"]), f"chunk_{name}")
        except Exception as error:  # whatever a version of it raises under a version of Triton
            print(f"flash-linear-attention has no {name} here: {type(error).__name__}: {str(error)[:100]}", flush=True)
    return found


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
            mask = create_block_mask(lambda b, h, t, s: s <= t, None, None, shape[1], shape[1], device="cuda")
            compiled[shape] = torch.compile(flex_attention, dynamic=False), mask
        run, mask = compiled[shape]
        found: Tensor = run(*(x.transpose(1, 2) for x in qkv), block_mask=mask).transpose(1, 2)
        return found

    return {"sdpa": sdpa, "flex": flex}


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


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
            forward = median_ms(lambda: run(*inputs))
        given = [x.detach().requires_grad_() for x in inputs]
        y = run(*given)
        grad = torch.randn_like(y[0] if isinstance(y, tuple) else y)
        del y

        def both() -> None:
            y = run(*given)
            torch.autograd.grad(y[0] if isinstance(y, tuple) else y, given, grad)

        torch.cuda.reset_peak_memory_stats()
        return {"forward": forward, "both": median_ms(both), "gigabytes": torch.cuda.max_memory_allocated() / 2**30}
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
    x = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    copy = median_ms(lambda: x.clone())
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    product = median_ms(lambda: a @ a)
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__,
            "copy GB/s": 2 * 2**30 / copy / 1e6, "bfloat16 TFLOP/s": 2 * 8192**3 / product / 1e9}


def loaded(name: str, backend: str) -> Any:
    """A module of the library, or of `SOURCES`."""
    program = seqdsl.load("mamba", name) if name == "selective_scan" else seqdsl.load(SOURCES.get(name, name))
    return program.module(backend=backend)


def rows(
    names: list[str], fla: bool, shapes: list[int]
) -> Iterator[tuple[str, tuple[int, ...], str, Callable[[], dict[str, Any]]]]:
    """(mixer, shape, candidate, its timing): kernels, then flash-linear-attention, which tunes itself for long, then PyTorch."""
    def ours(backend: str) -> dict[str, Callable[..., Any]]:
        return {name: loaded(name, backend) for name in names}

    others = [("fla", fla_operators(), FEW)] if fla else []
    others += [(peer, {"softmax": run}, SHAPES) for peer, run in attention_operators().items() if "softmax" in names]
    candidates = [("triton", ours("triton"), SHAPES), *others, ("torch", ours("torch"), FEW)]
    for candidate, operators, own in candidates:
        for name in [n for n in names if n in operators]:
            for shape in [s for s in own if SHAPES.index(s) in shapes]:
                run = operators[name]
                yield name, shape, candidate, lambda r=run, n=name, s=shape: timed(r, MIXERS[n](*s))  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mixers", nargs="*", default=list(MIXERS))
    parser.add_argument("--fla", action="store_true", help="flash-linear-attention too, at the end")
    parser.add_argument("--seconds", type=float, default=150.0, help="rows that would begin later are left out")
    parser.add_argument("--shapes", type=int, nargs="+", default=list(range(len(SHAPES))), help="numbers of shapes, from 0")
    parser.add_argument("--kernels", action="store_true", help="only the time of every kernel on the first shape")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    found: dict[str, Any] = {"machine": machine(), "milliseconds": {}}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{found['machine']['device'].replace(' ', '_')}.json"
    print(json.dumps(found["machine"]), flush=True)
    if arguments.kernels:
        for name in arguments.mixers:
            print(name, json.dumps(kernels(loaded(name, "triton"), MIXERS[name](*SHAPES[0])), indent=1), flush=True)
        return
    for name, shape, candidate, run in rows(arguments.mixers, arguments.fla, arguments.shapes):
        if time.perf_counter() - begin > arguments.seconds:
            print("out of time", flush=True)
            break
        torch.manual_seed(0)
        timing = run()
        found["milliseconds"].setdefault(name, {}).setdefault("x".join(map(str, shape)), {})[candidate] = timing
        print(f"{time.perf_counter() - begin:6.1f} s  {name:15} {shape!s:22} {candidate:7} {json.dumps(timing)}", flush=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
