"""Affine recurrences with kernels of their own: values, states and gradients, packed sequences, and what compilers say.

Run as a program, under Triton's interpreter, it prints a JSON object per case, as `recurrences` does: relative errors of
outputs, last states and gradients against the torch module in float64, and of outputs against the float64 interpreter of
the equations. Inputs lie between NaNs, and what kernels leave unwritten is NaN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from tests.backends.triton_kernel import packing, recurrences
from tests.backends.triton_kernel.ahead import TARGETS, answer
from tests.backends.triton_kernel.ahead import compiled as compile_one
from tests.backends.triton_kernel.cases import DTYPES
from tests.backends.triton_kernel.packing import Packed
from tests.backends.triton_kernel.processes import compile_in, interpret_in, unless_stopped
from tests.backends.triton_kernel.recurrences import Walk, built, compare, inputs, literal, split_errors

GATED = """
mixer gated(x[t,c], f[t,c], g[t,c]) -> o[t,c]:
    S[t,c] = sigmoid(f) * S[t-1] + (1 - sigmoid(f)) * x
    o[t,c] = g * S
"""
DECAYS = """
mixer decays(w[t,c], x[t,c], k[t,c]) -> o[t,c]:
    S[t,c] = exp(-exp(6 * w)) * S[t-1] + k * x
    o[t,c] = S / |c|
"""
BACKWARDS = """
mixer backwards(x[t,h,c], f[t,h,c], u[c], g[t,h,c], w[h]) -> o[t,h,c]:
    S[|t|,h,c] = 0
    S[t,h,c]   = exp(-softplus(f) * u^2) * S[t+1] + (1 - sigmoid(f)) * x * w
    p[t,h,c]   = silu(S) * g + w
    m[t,h]     = sum[c] S
    o[t,h,c]   = p - m * x
"""
ALONE = """
mixer alone(x[t], b) -> y[t]:
    S[t] = S[t-1] * sigmoid(b) + b * x
    y[t] = tanh(S) * x
"""
OUTER = """
mixer outer(k[t,h,d], v[t,h,e], a[t,h], w[d]) -> o[t,h,d,e]:
    S[t,h,d,e] = exp(-a^2) * S[t-1] + k * v
    o[t,h,d,e] = S * w + k
"""
RESETS = """
mixer resets(flag[t]: bool, a[t,c], x[t,c]) -> y[t,c]:
    S[t,c] = where(flag, 0, sigmoid(a)) * S[t-1] + a * x
    y[t,c] = exp(-S^2)
"""
AVERAGE = """
mixer average(x[t,c], a[c]) -> y[t,c]:
    y[t,c] = (1 - sigmoid(a)) * y[t-1] + sigmoid(a) * x
"""
QUOTIENT = """
mixer quotient(k[t,c], v[t,c], w[c]) -> y[t,c]:
    A[t,c] = exp(-exp(w)) * A[t-1] + exp(k) * v
    B[t,c] = exp(-exp(w)) * B[t-1] + exp(k)
    y[t,c] = A / B
"""
BASED = """
mixer based(x[t,c], a[t,c], b[c]) -> y[t,c]:
    S[-1,c] = b
    S[t,c]  = a * S[t-1] + x
    y[t,c]  = S + x
"""
NAMED = """
mixer named(total[t,c], place[t,c], sent[c], step[t,c]) -> first[t,c]:
    state[t,c] = sigmoid(place) * state[t-1] + total * sent
    first[t,c] = state * step + sent
"""
WALKS: dict[str, Walk] = {
    "gates": Walk(GATED, {"t": 21, "c": 5}),
    "gates of every second entry": Walk(GATED, {"t": 9, "c": 3}, apart=True),
    "gates in pieces": Walk(GATED, {"t": 70, "c": 2}),
    "one position": Walk(GATED, {"t": 1, "c": 3}),
    "decays between 0 and 1": Walk(DECAYS, {"t": 50, "c": 3}),
    "backwards, with what does not move": Walk(BACKWARDS, {"t": 45, "h": 2, "c": 1}),
    "one entry": Walk(ALONE, {"t": 20}),
    "an outer product": Walk(OUTER, {"t": 9, "h": 2, "d": 3, "e": 4}),
    "names of the kernels' own": Walk(NAMED, {"t": 9, "c": 3}),
    "resets": Walk(RESETS, {"t": 20, "c": 3}),
    "an average": Walk(AVERAGE, {"t": 20, "c": 3}),
    "a quotient of two states": Walk(QUOTIENT, {"t": 20, "c": 3}),
}
PACKED: dict[str, Packed] = {
    "packed gates": Packed(GATED, {"c": 5}),
    "packed, backwards": Packed(BACKWARDS, {"h": 1, "c": 3}, states=False, possible=True),
    "packed decays between 0 and 1": Packed(DECAYS, {"c": 3}, ends=(0, 0, 20, 21, 21, 90)),
    "packed averages": Packed(AVERAGE, {"c": 3}),
    "a packed base case": Packed(BASED, {"c": 3}, states=False, possible=True),
}
PRECISIONS = {"gates": ("float32", "float16", "bfloat16"), "an average": ("float32", "float16"),
              "backwards, with what does not move": ("float32", "float16")}
MODULES = ("gates", "decays between 0 and 1")  # in pieces and packed

# What is done wrong: in which case, and what stands in the text in the place of what.
MUTANTS: dict[str, tuple[str, str, str]] = {
    "pieces forget what was before": ("gates in pieces", "range(leading, piece):  # a few", "range(0):  # a few"),
    "pieces forget what is sent back": ("gates in pieces", "range(trailing - 1 - piece):", "range(0):"),
    "parts begin where they end": ("gates", "state = first_total + _decayed(first_whole, carry)",
                                   "state = total + _decayed(whole, carry)"),
    "chunks begin with nothing": ("gates in pieces", "tl.store(held + place, carry,", "tl.store(held + place, carry * 0,"),
    "steps behind the last one": ("gates", "decay = tl.where(inside, _log_sigmoid(f_now), 0.0)", "decay = _log_sigmoid(f_now)"),
    "a start gets no gradient": ("gates", "sequence * D + lane, arriving,", "sequence * D + lane, arriving * 0,"),
    "a last state sends nothing": ("gates", "carry = tl.load(d_last + sequence * D + lane, mask=own, other=0)",
                                   "carry = 0 * tl.load(d_last + sequence * D + lane, mask=own, other=0)"),
    "a decay is its logarithm": ("decays between 0 and 1", "slope = sent * tl.exp(decays[step]) * states[step]",
                                 "slope = sent * states[step]"),
    "outputs send nothing through the state": ("backwards, with what does not move", "sent = sent + source", "sent = sent"),
    "a sum that goes on outside": ("backwards, with what does not move", "w_sum = w_sum + tl.where(inside, ",
                                   "w_sum = w_sum + tl.where(own, 1.0 + "),
}  # fmt: skip
PACKED_MUTANTS: dict[str, tuple[str, str, str]] = {
    "sequences share a chunk": ("packed gates", "tl.where(along < 0, -sequence, sequence)", "0"),
    "against time sequences share one": ("packed, backwards", "tl.where(along < 0, -sequence, sequence)", "sequence"),
    "a sequence ends with its first piece": (
        "packed decays between 0 and 1", "(piece - leading) * LENGTH + LENGTH - 1", "LENGTH - 1"),
    "a base case counts once": (
        "a packed base case", "start.float().expand(shape)", "start.float() * (torch.arange(shape[0]) < 1).view(-1, 1)"),
    "nothing has no last state": ("packed gates", "found[1].copy_(start)", "pass"),
    "nothing sends nothing to its start": ("packed gates", "else last.float().clone()", "else torch.zeros_like(last)"),
}
# Much like another case, or long: only under --deep.
DEEP = frozenset({
    "gates, its operator", "gates, bfloat16", "backwards, with what does not move, float16", "gates in pieces, float32",
    "resets", "resets, float32", "an outer product", "an outer product, float32", "a quotient of two states",
    "a quotient of two states, float32", "packed averages", "packed gates", "a last state sends nothing",
    "nothing has no last state",
    "outputs send nothing through the state", "pieces forget what is sent back", "sequences share a chunk",
    "nothing sends nothing to its start", "a decay is its logarithm", "a start gets no gradient", "a sum that goes on outside",
    "a sequence ends with its first piece",
})  # fmt: skip


def operator_errors(name: str) -> list[float]:
    """0 where what `torch.library.opcheck` tests of an operator holds: schema, derivative, shapes, tracing."""
    walk = recurrences.WALKS.get(name) or WALKS[name]
    module, text = built(walk)
    calls: list[Any] = []
    first = text._affine_run
    text._affine_run = lambda *given: (calls.append(given), first(*given))[1]
    module(*inputs(Walk(walk.source, {**walk.sizes, "t": 20}), torch.float32))
    text._affine_run = first
    one, start, dtype = calls[0]
    given = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in (*one.operands, start)]
    operator = getattr(getattr(torch.ops, text.OPS), one.plan.name)
    found = torch.library.opcheck(operator, (*given, one.spans, list(one.sizes), list(one.numbers), one.reverse, dtype))
    return [float(result != "SUCCESS") for result in found.values()]


def kept_states(name: str) -> list[float]:
    """Of the tensors that are saved for the gradients, the entries in float32 beside the operands, for each of a state."""
    walk = WALKS[name]
    module, text = built(walk)
    vars(text)["AFFINE_ROWS"] = 8  # as on a GPU
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x.numel()), x)[1], lambda x: x):
        given = [x.requires_grad_() for x in inputs(walk, torch.float32)]
        module(*given)
    states = given[0].numel()
    return [(sum(saved) - len(given) * states) / states]


def interpreted(deep: bool) -> dict[str, list[float]]:
    """`case dtype` -> errors, from a process in which Triton interprets."""
    return interpret_in("scans", *(label for label, _ in _found() if deep or label.rpartition(", literally")[0] not in DEEP
                                   and label not in DEEP))  # fmt: skip


AHEAD = {"gates": GATED, "backwards": BACKWARDS, "decays": DECAYS, "an outer product": OUTER}
TABLE = Path(__file__).with_name("scans.txt")


def compiled(targets: list[str]) -> Iterator[dict[str, Any]]:
    """What every kernel of these recurrences, or of those named, takes, with operands in bfloat16."""
    for name, source in AHEAD.items():
        if sys.argv[3:] and name not in sys.argv[3:]:
            continue
        _, text = built(Walk(source, {}))
        plan = next(x for n, x in vars(text).items() if n.endswith("_scan_plan"))
        for which, target, packed in product(("ends", "states", "slopes", "adjoint"), targets, (False, True)):
            if packed and (name != "gates" or which in ("ends", "slopes")):
                continue
            kernel = getattr(plan, which)
            names = kernel.arg_names
            tensors = names[: names.index("HELD")]
            wide = ("start", "held", "last", "ends_whole", "ends_total", "d_last", "d_start")
            types = {**{n: "*fp32" if n in wide else "*bf16" for n in tensors}, "table": "*i32"}
            constants: dict[str, Any] = {"STEPS": text.AFFINE_STEPS, "ROWS": text.AFFINE_ROWS, "BD": text.AFFINE_LANES}
            constants |= {n: True for n in names if n.startswith("WANTS_")}
            constants |= {"PACKED": True} if packed else {"PACKED": False, "table": None}
            constants |= {n: 1 for n in names if n.endswith(f"_{plan.lanes - 1}") and n.rpartition("_")[0] in names}
            warps = text.AFFINE_ROWS * text.AFFINE_LANES // text.AFFINE_ENTRIES
            aligned = ("D", "along", *(n for n in names if n.endswith(("_batch", "_time"))), *(f"n{k}" for k in range(8)))
            used = compile_one(kernel, types, constants, target, aligned, num_warps=warps)
            yield {"name": f"{name}{', packed,' if packed else ''} {which} {target}", **used}


def compiled_report(targets: tuple[str, ...], names: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """`kernel target` -> what it takes, from a process that compiles."""
    return compile_in("scans", "--compile", ",".join(targets), *names)


def _found() -> Iterator[tuple[str, Callable[[], list[float]]]]:
    """What is asked for, and how it is found."""
    recurrences.WALKS.update(WALKS)
    for name in MODULES:
        yield f"{name}, in pieces", partial(split_errors, name)
    yield "gates, its operator", partial(operator_errors, "gates")
    yield "gates in pieces, what is kept", partial(kept_states, "gates in pieces")
    for name, case in WALKS.items():
        yield f"{name}, literally", lambda case=case: [literal(case)]
        for dtype in PRECISIONS.get(name, ("float32",)):
            yield f"{name}, {dtype}", partial(compare, case, DTYPES[dtype], "cpu")
    for name, one in PACKED.items():
        yield name, partial(packing.errors, one)
    yield "packed gates, one position", partial(packing.errors, replace(PACKED["packed gates"], ends=(0, 0, 1, 1)))
    yield "packed gates, no position", partial(packing.errors, replace(PACKED["packed gates"], ends=(0, 0, 0)))
    for name, (wrong, *change) in PACKED_MUTANTS.items():
        yield name, partial(unless_stopped, partial(packing.errors, PACKED[wrong], (change[0], change[1])))
    for name, (wrong, *change) in MUTANTS.items():
        yield name, partial(unless_stopped, partial(compare, WALKS[wrong], torch.float32, "cpu", (change[0], change[1])))


if __name__ == "__main__":
    answer(compiled, compiled_report, TABLE, tuple(TARGETS))
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    for label, find in _found():
        if not sys.argv[1:] or label in sys.argv[1:]:
            print(json.dumps([label, find()]), flush=True)
