"""Mixers whose normalised reads have kernels of their own: their values and gradients, and their kernels to compile.

Run as a program, under Triton's interpreter, it prints one JSON object per case: relative errors of outputs and gradients
against the torch module in float64. Every input lies between NaNs, and what kernels leave unwritten is NaN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import seqdsl
from seqdsl.api import load_backend
from tests.backends.triton_kernel.ahead import answer
from tests.backends.triton_kernel.ahead import compiled as compile_one
from tests.backends.triton_kernel.cases import DTYPES, _guarded
from tests.backends.triton_kernel.processes import compile_in, interpret_in
from tests.support.loops import relative

HEAD = "mixer {0}(q[t,h,d], k[t,h,d], v[t,h,e]{1}) -> o[t,h,e]:\n    index s over t\n"
READ = "    o[t,h,e] = sum[s] p * v[s]\n"


def _causal(name: str, scores: str, more: str = "", guard: str = "s <= t", before: str = "") -> str:
    """One head's scores under a guard, its values read."""
    return HEAD.format(name, more) + before + f"    p[t,s,h] = softmax[s | {guard}]({scores})\n" + READ


DOT = "sum[d] q * k[s] / sqrt(|d|)"


@dataclass(frozen=True)
class Read:
    """A mixer, by its source or its name in the library, and the lengths of its axes."""

    source: str
    sizes: dict[str, int]
    form: str = "auto"

    def program(self) -> Any:
        return seqdsl.load(self.source)


def _read(source: str, t: int = 70, h: int = 2, d: int = 16, e: int = 16, form: str = "auto", **more: int) -> Read:
    return Read(source, {"t": t, "h": h, "d": d, "e": e, **more}, form)


READS: dict[str, Read] = {
    "causal": _read(_causal("causal", DOT), t=150, d=20, e=17),
    "full": _read("mixer full(q[t,h,d], k[s,h,d], v[s,h,e]) -> o[t,h,e]:\n"
                  "    o[t,h,e] = sum[s] softmax[s](sum[d] q * k) * v\n", t=37, s=71),
    "features before positions": _read("mixer features(q[t,h,d], k[h,d,s], v[s,h,e]) -> o[t,h,e]:\n"
                                       "    o[t,h,e] = sum[s] softmax[s](sum[d] q * k / sqrt(|d|)) * v\n", t=37, s=71, d=20, e=17),
    "one position": _read(_causal("one", DOT), t=1, d=3, e=2),
    "strictly later": _read(_causal("later", DOT, guard="s > t")),
    "window": _read(_causal("window", DOT, guard="t - 40 < s <= t"), t=170, h=1),
    "window and first": _read(_causal("sink", DOT, guard="s <= t and (t - s < 20 or s < 3)"), t=90, h=1),
    "every third": _read(_causal("third", DOT, guard="s <= t and (t - s) % 3 == 0"), h=1),
    "softcap": _read(_causal("softcap", f"5 * tanh({DOT} / 5)")),
    "slopes by head": _read(_causal("alibi", f"{DOT} - 2.0^(-8 * (h + 1) / |h|) * (t - s)")),
    "learned slopes": _read(_causal("slopes", f"{DOT} - softplus(w) * (t - s)", ", w[h]"), t=90),
    "forgetting": _read(_causal("forget", f"{DOT} + G[t] - G[s]", ", f[t,h]", before="    G[t,h] = log_sigmoid(f) + G[t-1]\n")),
    "a bias for each pair": _read("mixer biased(q[t,h,d], k[s,h,d], v[s,h,e], a[t,s,h], b[h]) -> o[t,h,e]:\n"
                                  "    o[t,h,e] = sum[s] softmax[s](b * (sum[d] q * k) + a) * v\n", t=40, s=70, e=20),
    "documents and padding": _read(_causal("docs", DOT, ", doc[t]: int, keep[t]: bool", "s <= t and doc[s] == doc[t] and keep[s]")),
    "scaled by keys": _read(_causal("keyed", f"w[s] * tanh({DOT}) + c[t] * c[s]", ", w[t,h], c[t]"), t=101),
    "a factor of the weights": _read(HEAD.format("factor", ", u[t,h], w[t,h]") + f"    p[t,s,h] = softmax[s | s <= t]({DOT})"
                                     " * sigmoid(u[t] * w[s])\n" + READ),
    "a sink in the denominator": _read(HEAD.format("denominator", ", b[h]") + f"    z[t,s,h] = {DOT}\n"
                                       "    L[t,h] = logaddexp(b, logsumexp[s | s <= t](z))\n"
                                       "    o[t,h,e] = sum[s | s <= t] exp(z - L[t]) * v[s]\n"),
    "only the level": _read("mixer level(q[t,h,d], k[t,h,d]) -> L[t,h]:\n    index s over t\n"
                            f"    L[t,h] = logsumexp[s | s <= t]({DOT})\n", form="chunkwise"),
    "groups": _read("mixer groups(q[t,g,r,d], k[t,g,d], v[t,g,e], c[r]) -> o[t,g,r,e]:\n    index s over t\n"
                    f"    p[t,s,g,r] = softmax[s | s <= t](c * ({DOT}))\n    o[t,g,r,e] = sum[s] p * v[s]\n", g=2, r=3),
    "one head of keys": _read("mixer multi(q[t,h,d], k[t,d], v[t,e]) -> o[t,h,e]:\n    index s over t\n"
                              f"    p[t,s,h] = softmax[s | s <= t]({DOT})\n    o[t,h,e] = sum[s] p * v[s]\n"),
    "two products": _read("mixer two(q[t,h,d], k[t,h,d], x[t,h,r], y[t,r], v[t,h,e]) -> o[t,h,e]:\n    index s over t\n"
                          "    p[t,s,h] = softmax[s | s <= t]((sum[d] q * k[s] + sum[r] x * y[s]) / sqrt(|d| + |r|))\n" + READ,
                          r=5),
    "no product": _read("mixer graph(x[n,h,d], a[h,d], b[h,d], adj[n,m]: bool) -> y[n,h,d]:\n    index m over n\n"
                        "    p[n,m,h] = softmax[m | adj or n == m](leaky_relu(sum[d] a * x[n] + sum[d] b * x[m]))\n"
                        "    y[n,h,d] = sum[m] p * x[m]\n", n=40),
}  # fmt: skip
READS["blocks that are kept"] = _read(
    HEAD.format("kept", ", keep[t,n,h]: bool") + f"    p[t,s,h] = softmax[s | s <= t and keep[t,s//8,h]]({DOT})\n" + READ, n=9
)
READS["a table by distance"] = _read(
    HEAD.format("table", ", pos[m,h]: int") + f"    p[t,s,h] = softmax[s]({DOT} + pos[s - t + 20,h] / 4)\n" + READ, m=60
)
HALVES = ("causal", "learned slopes", "groups")  # in 16 bits, too
MODULES = ("causal", "window", "forgetting")  # in pieces, with states and packed; and their operators


def built(read: Read, backend: str = "triton") -> tuple[Any, ModuleType]:
    """A module, and the Python module that its text became."""
    program = read.program()
    found = load_backend(backend).load_class(program.source(read.form, backend), program.class_name)
    return found(), sys.modules[found.__module__]


def inputs(read: Read, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    found = []
    system = read.program().system()
    for x in system.inputs():
        drawn = torch.randn(2, *(read.sizes[system.axis(i)] for i in x.indices))
        found.append({"bool": drawn > 0, "int": (drawn.abs() * 3).long()}.get(x.dtype, drawn.to(dtype)))
    return found


def run(module: Any, given: list[Tensor]) -> list[Tensor]:
    """Outputs, then gradients of a fixed random functional of them."""
    given = [x.detach().requires_grad_(x.is_floating_point()) for x in given]
    found = module(*given)
    draw = torch.Generator().manual_seed(7)
    weights = torch.randn(found.shape, dtype=torch.float64, generator=draw).to(found)
    return [found.detach(), *torch.autograd.grad(found, [x for x in given if x.requires_grad], weights)]


def compare(read: Read, dtype: torch.dtype, device: str) -> list[float]:
    """Relative errors of outputs and gradients; PyTorch's function must not be called."""
    given = inputs(read, dtype)
    module, text = built(read)
    assert "fused_softmax" in vars(text)
    vars(text)["online_softmax"] = None
    fast = run(module, [_guarded(x, device) if x.is_floating_point() else x.to(device) for x in given])
    slow = run(built(read, "torch")[0], [x.to(device, torch.float64) if x.is_floating_point() else x.to(device) for x in given])
    return [relative(a, b) for a, b in zip(fast, slow, strict=True)]


def split_errors(name: str) -> list[float]:
    """A sequence in two pieces and a last step, and packed with another, against the torch module in float64."""
    read = READS[name]
    module, exact = built(read)[0], built(read, "torch")[0]
    given = inputs(Read(read.source, {**read.sizes, "t": 60, "h": 1}), torch.float32)
    wide = [x.double() if x.is_floating_point() else x for x in given]
    first, state = module(*(x[:, :30] for x in given), return_state=True)
    second, state = module(*(x[:, 30:59] for x in given), state=state, return_state=True)
    last, _ = module.step(*(x[:, 59] for x in given), state)
    packed = module(*(x[:1] for x in given), cu_seqlens=[0, 5, 5, 60])
    pieces = [exact(*(x[:1, a:b] for x in wide)) for a, b in ((0, 5), (5, 60))]
    whole = torch.cat([first, second, last.unsqueeze(1)], 1)
    return [relative(whole, exact(*wide)), relative(packed, torch.cat(pieces, 1))]


def operator_errors(name: str) -> list[float]:
    """0 where what `torch.library.opcheck` tests of an operator holds: schema, derivative, shapes, tracing."""
    module, text = built(READS[name])
    calls: list[Any] = []
    launch = text._Call.launch
    text._Call.launch = lambda call, which, extra, **flags: (calls.append(call), launch(call, which, extra, **flags))
    run(module, inputs(Read(READS[name].source, {**READS[name].sizes, "t": 20, "h": 1}), torch.float32))
    text._Call.launch = launch
    given = [x.detach().requires_grad_(x.is_floating_point()) for x in calls[0].tensors]
    operator = getattr(getattr(torch.ops, text.OPS), calls[0].plan.name)
    found = torch.library.opcheck(operator, (*given, list(calls[0].sizes), list(calls[0].numbers), None, None, torch.float32))
    return [float(result != "SUCCESS") for result in found.values()]


def interpreted() -> dict[str, list[float]]:
    """`case dtype` -> errors, from a process in which Triton interprets."""
    return interpret_in("reads")


AHEAD = {"causal": (64, 128, 256), "slopes by head": (128, 256), "groups": (128,), "a bias for each pair": (64, 128, 256)}
PACKED = {"causal": (128, 256), "slopes by head": (128,)}  # of packed sequences
TABLE = Path(__file__).with_name("reads.txt")
TABLES = {"sm_80": "sm_80", "sm_90": "sm_90", "sm_100": "sm_90", "gfx942": "hip"}


def compiled(targets: list[str]) -> Iterator[dict[str, Any]]:
    """What every kernel of these reads takes in bfloat16, at the tile that is its default."""
    for packed, name, wanted in [*((False, *x) for x in AHEAD.items()), *((True, *x) for x in PACKED.items())]:
        _, text = built(READS[name])
        plan = next(x for n, x in vars(text).items() if n.endswith("_plan"))
        for width, which, target in product(wanted, ("forward", "rows", "columns"), targets):
            widths = tuple(dict.fromkeys((leaf.width, width) for leaf in plan.leaves if leaf.width))
            constants = dict(text._softmax_constants(plan, which, widths, 2, TABLES[target]))
            options = {key: constants.pop(key) for key in ("num_warps", "num_stages")}
            constants["PRECISION"] = "ieee"
            kernel = getattr(plan, which)
            constants |= {n: True for n in kernel.arg_names if n.startswith("WANTS_")}
            if plan.packed:
                constants |= text._softmax_packed(packed, TABLES[target]) | ({} if packed else {"spans": None})
            steps = tuple(n for n in kernel.arg_names[: kernel.arg_names.index("S") + 1] if not n.endswith("_count"))
            used = compile_one(kernel, types(plan), constants, target, steps, **options)
            yield {"name": f"{name}{', packed' * packed} {width} {which} {target}", **used}


def compiled_report(targets: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """`kernel target` -> what it takes, from a process that compiles."""
    return compile_in("reads", "--compile", ",".join(targets))


def types(plan: Any) -> dict[str, str]:
    """Pointers of the kernels' tensors, and floats; the rest are integers."""
    found = {"o": "*bf16", "d_o": "*bf16", "level": "*fp32", "delta": "*fp32", "spans": "*i32"}
    for leaf in plan.leaves:
        pair = "row" in leaf.dims and "column" in leaf.dims
        found[leaf.name] = "*bf16" if leaf.width else "*fp32" if leaf.side else "*i1"
        found[f"d_{leaf.name}"] = "*bf16" if leaf.width or pair else "*fp32"
    names = [p.name for p in plan.forward.params]
    after = names[names.index("S") + 1 :]
    return found | {n: "fp32" for n, kind in zip(after, plan.numbers, strict=False) if kind == "f"}


if __name__ == "__main__":
    answer(compiled, compiled_report, TABLE, tuple(TABLES))
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    for name, case in READS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        if name in MODULES:
            print(json.dumps([f"{name}, in pieces", split_errors(name)]), flush=True)
            print(json.dumps([f"{name}, its operator", operator_errors(name)]), flush=True)
        for label in ("float32", "float16") if name in HALVES else ("float32",):
            print(json.dumps([f"{name}, {label}", compare(case, DTYPES[label], "cpu")]), flush=True)
