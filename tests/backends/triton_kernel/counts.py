"""What Triton's interpreter really loads, stores and multiplies in every launch, to hold the count without data against.

Run as a program, under the interpreter, it prints one JSON object per mixer: its launches forward and backward, each as
[kernel, bytes asked for, distinct bytes, flops of products]. Entry points elsewhere: `counts`, `interpreted`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch

import seqdsl
from seqdsl.api import load_backend
from tests.backends.triton_kernel.processes import ROOT, interpret_in
from tests.bench.gpu import SOURCES

BEFORE = """
mixer before(q[t,h,d], k[t,h,d], v[t,h,e], g[{g}]) -> o[t,h,e]:
    o[t,h,e]   = sum[d] q * S[t-1]
    S[t,h,d,e] = exp(g) * S[t-1] + k * v
"""
SUMS = """
mixer sums(q[t,h,d], k[t,h,d], v[t,h,e]) -> o[t,h,e]:
    S[t,h,d,e] = S[t-1] + k * v
    o[t,h,e]   = sum[d] q * S
"""
MIXERS = {"gla": "gla", "simple_gla": "simple_gla", "retention": "retention", "softmax": "softmax",
          "hgrn": "hgrn", "gated_delta_rule": "gated_delta_rule", "kda": SOURCES["kda"],
          "read before": BEFORE.format(g="t,h,d"), "read before, by head": BEFORE.format(g="t,h"), "sums": SUMS}
UNNAMED = ("column_decay", "head_decay", "learned_start", "negative_decay", "now_and_before", "exclusive_bonus")
MIXERS |= {name: str(ROOT / "tests" / "unnamed" / f"{name}.seq") for name in UNNAMED}
FILES = {"linear_attention": "linear", "simple_gla_gva": "simple_gla", "hgrn2": "hgrn", "mlstm_plain": "mlstm",
         "plstm_1d_scalar": "plstm_1d"} | {x: x for x in ("rwkv5", "rwkv6", "lightnet", "mlstm", "ssd", "vision_retention")}
OBSERVED = ("gla", "simple_gla", "read before", "column_decay", "softmax", "hgrn", "gated_delta_rule")
SMALL = {"t": 70, "h": 2}  # a chunk and a ragged one
Launches = dict[str, list[list[Any]]]


def shapes(system: Any, batch: int, lengths: dict[str, int], width: int) -> list[tuple[int, ...]]:
    return [(batch, *(lengths.get(system.axis(i), width) for i in x.indices)) for x in system.inputs()]


def _program(name: str) -> Any:
    return seqdsl.load(FILES[name], name) if name in FILES else seqdsl.load(MIXERS[name])


def counts(name: str, batch: int, lengths: dict[str, int], width: int, dtype: torch.dtype, **options: Any) -> Any:
    """The count of one mixer on inputs of these shapes."""
    from seqdsl.backends.triton_kernel.count import counted

    program = _program(name)
    text, system = program.source(backend="triton"), program.system()
    given = [(shape, dtype) for shape in shapes(system, batch, lengths, width)]
    sizes = {a: lengths.get(a, width) for x in system.params() for a in map(system.axis, x.indices)}
    return counted(text, program.class_name, load_backend("triton").companions(text), given, sizes, **options)


def observed(name: str) -> Launches:
    """The same by running it: `create_masked_load` and its like are what every access and product goes through."""
    from triton.runtime import interpreter

    found: list[list[Any]] = []
    places: dict[str, set[int]] = {}
    builder, execute = interpreter.InterpreterBuilder, interpreter.GridExecutor.__call__
    load, store, dot = builder.create_masked_load, builder.create_masked_store, builder.create_dot

    def note(what: str, pointers: Any, mask: Any) -> None:
        size = pointers.get_element_ty().primitive_bitwidth // 8
        at = np.atleast_1d(pointers.data)[np.atleast_1d(np.broadcast_to(mask.data, pointers.data.shape))]
        found[-1][1] += size * at.size
        places.setdefault(f"{what} {size}", set()).update(at.tolist())

    def noted_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        note("load", pointers, mask)
        return load(self, pointers, mask, *rest)

    def noted_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        note("store", pointers, mask)
        return store(self, pointers, value, mask, *rest)

    def noted_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        found[-1][3] += 2 * a.data.shape[0] * a.data.shape[1] * b.data.shape[1]
        return dot(self, a, b, *rest)

    def noted_launch(self: Any, *arguments: Any, **named: Any) -> Any:
        found.append([self.fn.__name__.strip("_").removesuffix("_kernel"), 0, 0, 0])
        places.clear()
        result = execute(self, *arguments, **named)
        found[-1][2] = sum(int(what.split()[1]) * len(at) for what, at in places.items())
        return result

    builder.create_masked_load, builder.create_masked_store, builder.create_dot = noted_load, noted_store, noted_dot
    interpreter.GridExecutor.__call__ = noted_launch
    program = seqdsl.load(MIXERS[name])
    module = program.module(backend="triton")
    torch.manual_seed(0)  # decays near 1, whichever inputs they are
    given = [(1 - 1e-3 * torch.rand(shape) if name == "hgrn" else -1e-3 * torch.rand(shape)).requires_grad_()
             for shape in shapes(program.system(), 1, SMALL, 20)]  # fmt: skip
    with torch.no_grad():
        module(*given)
    forward = found[:]
    y = module(*given)
    found.clear()
    torch.autograd.grad(y, given, torch.ones_like(y), allow_unused=True)
    builder.create_masked_load, builder.create_masked_store, builder.create_dot = load, store, dot
    interpreter.GridExecutor.__call__ = execute
    return {"forward": forward, "backward": found[:]}


def interpreted() -> dict[str, Launches]:
    """`mixer` -> its launches, from a process in which Triton interprets."""
    return interpret_in("counts")


if __name__ == "__main__":
    for name in sys.argv[1:] or OBSERVED:
        print(json.dumps([name, observed(name)]), flush=True)
