"""Mixers whose steps have kernels of their own: their values and states, and their kernels to compile.

Run as a program, under Triton's interpreter, it prints one JSON object per case: relative errors of outputs and of the
last state against the float64 interpreter, after steps from the very first state. Every input lies between NaNs, and what
kernels leave unwritten is NaN. PyTorch's own step must not be called.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import seqdsl
from seqdsl.api import load_backend
from seqdsl.ir.state import flatten
from tests.backends.triton_kernel.ahead import TARGETS, answer
from tests.backends.triton_kernel.ahead import compiled as compile_one
from tests.backends.triton_kernel.cases import DTYPES, _guarded
from tests.backends.triton_kernel.processes import ROOT, compile_in, interpret_in, unless_stopped

UNNAMED = ROOT / "tests" / "unnamed"


@dataclass(frozen=True)
class Stepped:
    """A mixer, by a file of `tests/unnamed`, its name in the library or its source; lengths; how many positions."""

    source: str
    sizes: dict[str, int] = field(default_factory=dict)
    mixer: str | None = None
    built: dict[str, int] = field(default_factory=dict)  # what the module is built with
    time: int = 3
    scale: float = 1.0

    def program(self) -> Any:
        file = UNNAMED / f"{self.source}.seq"
        return seqdsl.load(file if "\n" not in self.source and file.exists() else self.source, self.mixer)


def _unnamed(name: str, fixed: str = "", **sizes: int) -> Stepped:
    """`fixed` lengths are those that parameters need."""
    return Stepped(name, sizes, built={i: sizes[i] for i in fixed})


def _source(head: str, *equations: str) -> str:
    return f"mixer {head}:\n" + "".join(f"    {e}\n" for e in equations)


# Heads, keys and values that are no powers of two; values in two blocks of a tile; every kind of state.
STEPS: dict[str, Stepped] = {
    "a decay for each column": _unnamed("column_decay", h=2, d=20, e=70),
    "a decay for each head, from a parameter": _unnamed("head_decay", "h", h=3, d=5, e=6),
    "a decay for each head, from a table": Stepped("retention", {"h": 3, "d": 5, "e": 6}),
    "a decay for each entry": _unnamed("mixed_decay", h=2, d=5, e=37),
    "two axes that are summed over": _unnamed("four_axes", h=2, d=3, e=5, n=6),
    "decays above one and below": _unnamed("negative_decay", h=2, d=5, e=6),
    "reads before the step": _unnamed("exclusive_bonus", h=2, d=5, e=6),
    "reads before and after": _unnamed("now_and_before", h=2, d=5, e=6),
    "a start that is learned": _unnamed("learned_start", "hde", h=2, d=5, e=6),
    "one of two states feeds the other": _unnamed("feed_forward", h=2, d=5, e=6),
    "erasing along the values": _unnamed("value_erase", h=2, d=5, e=6),
    "erasing of rank three": _unnamed("rank_three", h=2, d=5, e=6, j=3),
    "a reflection": _unnamed("reflection", h=2, d=20, e=70),
    "two states that erase each other": _unnamed("coupled_erase", h=2, d=5, e=6),
    "a vector that erases itself": _unnamed("vector_rank_one", d=7),
    "a state without a read": _unnamed("raw_decay", c=70),
    "two states of an entry": _unnamed("real_turn", c=9),
    "the larger of two": _unnamed("decaying_max", c=9),
    "a queue": _unnamed("queue_length", c=9),
    "the best path": _unnamed("best_path", n=5),
    "the shortest path": _unnamed("shortest_path", n=5),
    "a sum of paths": _unnamed("soft_path", c=5),
    "a matrix from the data": _unnamed("markov_filter", c=5, n=6),
    "neighbours around a ring": _unnamed("ring_filter", i=5, c=6, a=3),
    "something nonlinear": _unnamed("self_gate", c=9),
    "a state that is rounded": _unnamed("rounded_state", c=70),
    "halves that are rounded": Stepped(_source("halves(n[t,c]: int) -> y[t,c]", "y[t,c] = round(n / 2 + y[t-1])"), {"c": 9}),
    "what was two steps ago": _unnamed("echo", c=9),
    "a normaliser and a maximum": Stepped("mlstm", {"h": 2, "d": 20, "e": 70}),
    "tiles of every head in one": Stepped(
        _source("bare(x[t], a[t]) -> y[t]", "y[t] = exp(-a^2) * y[t-1] + x"), {}
    ),
    "guards, integers and positions": Stepped(
        _source("guarded(q[t,h,d], v[t,h,e], n[t,h]: int, keep[t,h,d]: bool) -> o[t,h,e]",
                "S[t,h,d,e] = where(keep, 2.0^(-h - 1), 1 / (d + 1)) * S[t-1] + q * v",
                "o[t,h,e]   = (sum[d | d <= n] q * S) / (h + 1) + max[d | d % 2 == 0](S)"),
        {"h": 2, "d": 5, "e": 6}),
    "a part that reads what a kernel computes": Stepped(
        _source("powers(q[t,h,d], k[t,h,d], v[t,h,e]) -> o[t,h,e]", "S[t,h,d,e] = 0.9 * S[t-1] + k * v",
                "n[t,h,d]   = sum[e] S^3", "o[t,h,e]   = sum[d] q * S / (1 + abs(n))"), {"h": 2, "d": 5, "e": 6}),
    "a gate at two indices": Stepped(
        _source("squares(k[t,h,d], v[t,h,d]) -> o[t,h,d]", "index j over d", "u[t,h,d]   = tanh(k)",
                "S[t,h,d,j] = 0.5 * S[t-1] + u * u[t,h,j]", "o[t,h,d]   = sum[j] S * v[t,h,j]"), {"h": 2, "d": 5}),
    "functions": Stepped(
        _source("functions(x[t,c], y[t,c]) -> s[t,c]",
                "s[t,c] = tanh(x) * s[t-1] + log1p(exp(y)) - expm1(x / 9) + gelu(x) + elu(y) + logaddexp(x, y)"
                " + softplus(x) * sigmoid(s[t-1]) + log_sigmoid(y)"), {"c": 33}),
    "remainders of reals": Stepped(
        _source("remainders(x[t,c]) -> y[t,c]", "y[t,c] = 0.5 * y[t-1] + x % 2 + (c % 3) * (x // 0.7)"), {"c": 9}
    ),
    "a slow decay": Stepped(
        _source("slow(g[t,c], x[t,c]) -> s[t,c]", "s[t,c] = exp(-exp(g - 14)) * s[t-1] + x / (1 + x^2)"), {"c": 40}, time=300),
    "a gru": Stepped("gru", {"c": 5}, built={"c": 5, "N": 6}),
    "a layer": Stepped("gla", {"c": 16}, "GLA", {"c": 16, "H": 2}),
    "a layer with windows": Stepped("delta_rule", {"c": 12}, "DeltaNet", {"c": 12, "H": 2}),
    "a layer of states by channel": Stepped("mamba", {"c": 6}, "Mamba", {"c": 6, "N": 5}),
}  # fmt: skip
HALVES = ("a decay for each column", "a reflection", "a layer")  # in 16 bits, too


def built(case: Stepped, backend: str = "triton", form: str = "auto") -> tuple[Any, ModuleType]:
    """A module, and the Python module that its text became."""
    torch.manual_seed(0)
    found = case.program().module(form, backend, **case.built)
    return found, sys.modules[type(found).__module__]


def inputs(case: Stepped) -> dict[str, Tensor]:
    """Two sequences of `time` positions."""
    torch.manual_seed(1)
    system = case.program().system()
    found = {}
    for x in system.inputs():
        lengths = [case.time if system.axis(i) == system.stream else case.sizes[system.axis(i)] for i in x.indices]
        drawn = torch.randn(2, *lengths) * case.scale
        found[x.name] = {"bool": drawn > 0, "int": (drawn.abs() * 3).long()}.get(x.dtype, drawn)
    return found


def exact(case: Stepped, module: Any, given: dict[str, Tensor]) -> list[np.ndarray[Any, Any]]:
    """Outputs and the last state by the float64 interpreter, sequence by sequence."""
    params = {n: x.detach().double().cpu().numpy() for n, x in module.state_dict().items()}
    found = []
    for b in range(2):
        one = {n: x[b].double().numpy() if x.is_floating_point() else x[b].numpy() for n, x in given.items()}
        result = case.program().interpret(one, params=params, sizes=case.built)
        found.append([*result["outputs"].values(), *flatten(result["state"]).values()])
    return [np.stack(pair) for pair in zip(*found, strict=True)]


def steps(case: Stepped, module: Any, given: dict[str, Tensor], device: str = "cpu") -> list[Tensor]:
    """Outputs, stacked, and the last state, from steps alone."""
    system = case.program().system()
    along = {x.name: [k for k, i in enumerate(x.indices) if system.axis(i) == system.stream] for x in system.inputs()}
    none = [x.narrow(1 + along[n][0], 0, 0) if along[n] else x for n, x in given.items()]
    _, state = module(*(x.to(device) for x in none), return_state=True)
    outputs = []
    for t in range(case.time):
        now = [x.select(1 + along[n][0], t) if along[n] else x for n, x in given.items()]
        now = [_guarded(x, device) if x.is_floating_point() else x.to(device) for x in now]
        found, state = module.step(*now, _guarded_state(state, device))
        outputs.append(found if isinstance(found, tuple) else (found,))
    places = [[k for k, i in enumerate(system.tensors[o].indices) if system.axis(i) == system.stream] for o in system.outputs]
    stacked = [torch.stack(x, 1 + p[0]) if p else x[-1] for x, p in zip(zip(*outputs, strict=True), places, strict=True)]
    return [*stacked, *(torch.as_tensor(x) for x in flatten(state).values())]


def _guarded_state(state: Any, device: str) -> Any:
    if isinstance(state, dict):
        return {name: _guarded_state(x, device) for name, x in state.items()}
    return _guarded(state, device) if isinstance(state, Tensor) and state.is_floating_point() else state


def relative(found: Tensor, wanted: np.ndarray[Any, Any]) -> float:
    """Relative RMS; what is infinite must be so in both."""
    a, b = found.detach().double().cpu().numpy(), np.asarray(wanted, dtype=np.float64)
    if a.shape != b.shape or not np.array_equal(a[np.isinf(b)], b[np.isinf(b)]):
        return float("inf")
    a, b = (np.where(np.isinf(b), 0.0, x) for x in (a, b))
    return float(np.sqrt(((a - b) ** 2).sum()) / (np.sqrt((b**2).sum()) + 1e-30))


def chains(text: ModuleType) -> dict[str, Any]:
    """The functions that launch kernels."""
    return {name: x for name, x in vars(text).items() if name.endswith("_chain") and name != "fused_chain"}


def counted(text: ModuleType) -> list[str]:
    """What is called of them, from now on."""
    calls: list[str] = []

    def watched(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: (calls.append(name), run(*given))[1]

    vars(text).update({name: watched(name, run) for name, run in chains(text).items()})
    return calls


def compare(case: Stepped, dtype: torch.dtype, edit: Callable[[str], str] | None = None, device: str = "cpu") -> list[float]:
    """Relative errors of outputs and the last state; the kernels must be called, once a step."""
    given = {n: x.to(dtype) if x.is_floating_point() else x for n, x in inputs(case).items()}
    module, text = built(case) if edit is None else edited(case, edit)
    module = module.to(device, dtype)
    calls = counted(text)
    with torch.no_grad():
        found = steps(case, module, given, device)
    assert calls and len(calls) == len(chains(text)) * case.time, (case, calls)
    return [relative(a, b) for a, b in zip(found, exact(case, module, given), strict=True)]


def edited(case: Any, edit: Callable[[str], str]) -> tuple[Any, ModuleType]:
    """The module of a case, with its text changed, which must change it."""
    program, backend = case.program(), load_backend("triton")
    source = program.source("auto", "triton")
    changed = edit(source)
    assert changed != source, "there is nothing to break"
    torch.manual_seed(0)
    changed = changed.replace('OPS = "seqdsl_', 'OPS = "broken_')  # its operators must not be those of the whole ones
    module = backend.build_module(changed, program.class_name, **case.built)
    return module, sys.modules[type(module).__module__]


def _swap(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


# Mistakes that a writer of kernels could make, and a case that shows each.
MUTANTS: dict[str, tuple[str, Callable[[str], str]]] = {
    "the state is not decayed": ("a decay for each column", _swap("_decayed(g_tile, S_before_tile)", "S_before_tile")),
    "the old state is stored": ("a decay for each column", _swap("+ e,\n        S_tile,", "+ e,\n        S_before_tile,")),
    "the old state is read": ("a decay for each column", _swap("q_tile * S_tile", "q_tile * S_before_tile")),
    "a read before the step has decayed": (
        "reads before the step", _swap("q_tile * (S_before_tile", "q_tile * (tl.exp(g_tile) * S_before_tile")),
    "only the first block of columns": ("a decay for each column", _swap("% blocks * Be", "* 0")),
    "what no column has is never stored": ("a normaliser and a maximum", _swap("first_e == 0", "first_e < 0")),
    "the padding of a maximum takes part": (
        "guards, integers and positions", _swap("== 0) & (d < d_count)", "== 0) & (d < 8)")),
    "a guard is forgotten": ("guards, integers and positions", _swap("(d <= n_tile) & ", "")),
    "every head has the first one's keys": ("a decay for each column", _swap(" + h * k_h", "")),
    "a slow decay is rounded": ("a slow decay", _swap("rate = tl.where(slow, _expm1_small(g), tl.exp(g))", "rate = tl.exp(g)")),
    "halves are rounded up": ("halves that are rounded", _swap("& (down * 0.5 != tl.floor(down * 0.5))", "")),
    "a sum is not divided": ("a layer", lambda text: re.sub(r" / number\w*\n", "\n", text)),
    "the error of an erasure has the other sign": ("a reflection", _swap("- 2 *", "+ 2 *")),
}  # fmt: skip


def gradient_errors(case: Stepped) -> list[float]:
    """Steps that are asked for gradients, or are in float64, are PyTorch's: 0 where no kernel was called; and how far
    their gradients are from those of the torch module."""
    given = inputs(case)
    module, text = built(case)
    slow, _ = built(case, "torch")
    calls = counted(text)
    found = []
    for one in (module, slow):
        some = {n: x.clone().requires_grad_(x.is_floating_point()) for n, x in given.items()}
        y, *_ = steps(case, one, some)
        found.append(torch.autograd.grad(y.square().sum(), list(some.values())))
    with torch.no_grad():
        steps(case, module.double(), {n: x.double() for n, x in given.items()})
    return [float(len(calls)), *(relative(a, b.numpy()) for a, b in zip(*found, strict=True))]


def operator_errors(case: Stepped) -> list[float]:
    """0 where what `torch.library.opcheck` tests of an operator holds: schema, shapes, tracing."""
    module, text = built(case)
    (name, run), seen = next(iter(chains(text).items())), []
    vars(text)[name] = lambda *given: (seen.append(given), run(*given))[1]
    with torch.no_grad():
        steps(case, module, inputs(case))
    operator = getattr(getattr(torch.ops, text.OPS), name)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    found = torch.library.opcheck(operator, seen[0], test_utils=checks)
    return [float(result != "SUCCESS") for result in found.values()]


def traced_errors(case: Stepped) -> list[float]:
    """A step traced as one graph, against the step itself."""
    module, _ = built(case)
    x = next(iter(inputs(case).values()))
    with torch.no_grad():
        _, state = module(x[:, :0], return_state=True)
        traced = torch.compile(module.step, backend="eager", fullgraph=True)
        found, wanted = (run(x[:, 0], state)[0] for run in (traced, module.step))
    return [relative(found, wanted.double().numpy())]


def interpreted(*names: str) -> dict[str, list[float]]:
    """`case dtype` -> errors, from a process in which Triton interprets."""
    return interpret_in("steps")


# What is compiled ahead of time: bfloat16 inputs and float32 states, at lengths of models.
AHEAD: dict[str, tuple[Stepped, dict[str, int]]] = {
    "gla 128": (Stepped("gla"), {"h": 16, "d": 128, "e": 128}),
    "gla 256": (Stepped("gla"), {"h": 8, "d": 256, "e": 256}),
    "gated delta rule 128": (Stepped("gated_delta_rule"), {"h": 16, "d": 128, "e": 128}),
    "rwkv7 64": (Stepped("rwkv7", mixer="rwkv7"), {"h": 32, "d": 64, "e": 64}),
    "mamba 16": (Stepped("mamba", mixer="selective_scan"), {"d": 4096, "n": 16}),
    "mlstm 256": (Stepped("mlstm"), {"h": 4, "d": 256, "e": 512}),
    "erasing along values 64": (_unnamed("value_erase"), {"h": 16, "d": 64, "e": 64}),
    "erasing along values 128": (_unnamed("value_erase"), {"h": 16, "d": 128, "e": 128}),
    "a state by channel": (_unnamed("raw_decay"), {"c": 4096}),
    "the best path 64": (_unnamed("best_path"), {"n": 64, "m": 64}),
}
TABLE = Path(__file__).with_name("steps.txt")


def compiled(targets: list[str]) -> Iterator[dict[str, Any]]:
    """What every kernel of these steps takes at the tile that is its default."""
    for name, (case, lengths) in AHEAD.items():
        _, text = built(case)
        for plan, target in product((x for n, x in vars(text).items() if n.endswith("_chain_plan")), targets):
            constants = dict(text._chain_blocks(plan, {"batch": 1, "t": 1, **lengths}))
            options = {"num_warps": text._chain_warps(constants)}
            names, count = plan.kernel.arg_names, len(plan.leaves)
            outputs = names[count : count + len(plan.outputs)]
            types = {n: "*fp32" if n.endswith("_before") else "*bf16" for n in names[:count]}
            types |= {n: "*bf16" if narrow else "*fp32" for n, (_, narrow) in zip(outputs, plan.outputs, strict=True)}
            steps = names[count + len(outputs) : names.index(f"{plan.space[0]}_count")]
            ends = iter(steps)
            last = [[next(ends) for _ in dims.split()][-1] for dims in plan.leaves]
            constants |= dict.fromkeys(last, 1)
            numbers = names[names.index(f"{plan.space[-1]}_count") + 1 :]
            types |= {n: "fp32" for n, kind in zip(numbers, plan.numbers, strict=False) if kind == "f"}
            wide = tuple(n for n in steps if n not in last)
            yield {"name": f"{name} {target}", **compile_one(plan.kernel, types, constants, target, wide, **options)}


def compiled_report(targets: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """`kernel target` -> what it takes, from a process that compiles."""
    return compile_in("steps", "--compile", ",".join(targets))


def _print_errors(names: list[str]) -> None:
    for name, case in STEPS.items():
        for label in ("float32", "float16") if name in HALVES else ("float32",):
            if not names or name in names:
                print(json.dumps([f"{name}, {label}", compare(case, DTYPES[label])]), flush=True)
    if not names or "a gradient" in names:
        print(json.dumps(["a gradient", gradient_errors(STEPS["a reflection"])]), flush=True)
        print(json.dumps(["traced", traced_errors(STEPS["a layer"])]), flush=True)
        print(json.dumps(["its operator", operator_errors(STEPS["a normaliser and a maximum"])]), flush=True)
    for name, (mixer, edit) in MUTANTS.items():
        if not names or name in names:
            print(json.dumps([name, unless_stopped(partial(compare, STEPS[mixer], torch.float32, edit))]), flush=True)


if __name__ == "__main__":
    answer(compiled, compiled_report, TABLE, tuple(TARGETS))
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    _print_errors(sys.argv[1:])
