"""Mixers with groups of equations over whole sequences that have kernels: their values and gradients, and what compilers say.

Run as a program, under Triton's interpreter, it prints one JSON object per case: relative errors of outputs and of the
gradients of all inputs and parameters, against the float64 interpreter of the equations and of the equations of their
adjoint (`forms.adjoint`). Inputs and parameters lie between NaNs, and what kernels leave unwritten is NaN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.triton_kernel.support import window_adjoint as lanes
from backends.triton_kernel.support import window_kernels as window
from seqdsl.forms.adjoint import adjoint
from seqdsl.ir.interpreter import interpret
from tests.backends.triton_kernel.ahead import TARGETS, answer
from tests.backends.triton_kernel.ahead import compiled as compile_one
from tests.backends.triton_kernel.cases import DTYPES, _guarded
from tests.backends.triton_kernel.processes import compile_in, interpret_in, unless_stopped
from tests.backends.triton_kernel.sequence_cases import HALVES, LAYERS, LENGTHS, MUTANTS, WHOLE, Whole
from tests.backends.triton_kernel.steps import edited, relative


def built(case: Whole, backend: str = "triton") -> tuple[Any, ModuleType]:
    """A module, and the Python module that its text became."""
    torch.manual_seed(0)
    found = case.program().module("auto", backend, **case.built)
    return found, sys.modules[type(found).__module__]


def inputs(case: Whole) -> dict[str, Tensor]:
    """Sequences of `time` positions."""
    torch.manual_seed(1)
    system = case.program().system()
    found = {}
    for x in system.inputs():
        lengths = [case.time if system.axis(i) == system.stream else case.sizes[system.axis(i)] for i in x.indices]
        drawn = torch.randn(1 if x.name in case.alike else case.batch, *lengths) * case.scale
        found[x.name] = {"bool": drawn > 0, "int": (drawn.abs() * 3).long()}.get(x.dtype, drawn)
    return found


def cotangents(outputs: list[Tensor]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(7)
    return [torch.randn(y.shape, dtype=torch.float64, generator=draw) for y in outputs]


def exact(case: Whole, module: Any, given: dict[str, Tensor], sent: list[Tensor]) -> list[np.ndarray[Any, Any]]:
    """Outputs, and gradients of real inputs and of parameters, by the float64 interpreter, sequence by sequence."""
    system = case.program().system()
    params = {n: x.detach().double().numpy() for n, x in module.state_dict().items()}
    back = adjoint(system)
    values, slopes = [], []
    for b in range(case.batch):
        each = {n: x.detach()[b % x.shape[0]] for n, x in given.items()}
        one = {n: x.double().numpy() if x.is_floating_point() else x.numpy() for n, x in each.items()}
        values.append(list(interpret(system, inputs=one, params=params, sizes=case.built)["outputs"].values()))
        grads = {f"{n}.grad": g[b].numpy() for n, g in zip(system.outputs, sent, strict=True)}
        found = interpret(back, inputs={**one, **grads}, params=params, sizes=case.built)["outputs"]
        slopes.append({n.removesuffix(".bar"): x for n, x in found.items()})
    outputs = [np.stack(pair) for pair in zip(*values, strict=True)]
    wanted = [x.name for x in (*system.inputs(), *system.params()) if x.dtype == "real"]
    every = {n: np.stack([s[n] for s in slopes]) for n in wanted}
    return [*outputs, *(every[n] if n in given and given[n].shape[0] > 1 else every[n].sum(0, keepdims=n in given) for n in wanted)]


def real(found: Any) -> list[Tensor]:
    return list(found) if isinstance(found, tuple) else [found]


def run(case: Whole, module: Any, given: dict[str, Tensor], sent: list[Tensor] | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs with gradients, and what was sent back to them."""
    some = [x.requires_grad_(x.is_floating_point()) for x in given.values()]
    outputs = real(module(*some))
    sent = cotangents(outputs) if sent is None else sent
    names = [".".join(x.path) for x in case.program().system().params() if x.dtype == "real"]
    wanted = [x for x in some if x.requires_grad] + [module.get_parameter(n) for n in names]
    grads = [g.to(y) for g, y in zip(sent, outputs, strict=True)]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, wanted, grads)], sent


def counted(text: ModuleType) -> list[str]:
    """What is launched of groups, from now on."""
    calls: list[str] = []

    def watched(name: str, launch: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: (calls.append(name), launch(*given))[1]

    for name in ("_sequence_run", "_sequence_adjoint"):
        vars(text)[name] = watched(name, vars(text)[name])
    return calls


def _between_nans(module: Any, device: str) -> Any:
    for x in module.parameters():
        x.data = _guarded(x.data, device)
    return module


def compare(case: Whole, dtype: torch.dtype, edit: Callable[[str], str] | None = None, device: str = "cpu") -> list[float]:
    """Relative errors of outputs and gradients; the kernels must be launched, once forward and once back."""
    given = {n: x.to(dtype) if x.is_floating_point() else x for n, x in inputs(case).items()}
    module, text = built(case) if edit is None else edited(case, edit)
    module = module.to(device, dtype)
    # several rows to a program, and some behind the last one
    vars(text).update(SEQUENCE_SHARES=case.shares, WINDOW_SHARES=case.shares, SEQUENCE_PROGRAMS=2)
    calls = counted(text)
    found, sent = run(case, _between_nans(module, device), {n: _guarded(x, device) if x.is_floating_point() else x.to(device)
                                                            for n, x in given.items()})  # fmt: skip
    assert case.time == 0 or calls.count("_sequence_run") == calls.count("_sequence_adjoint") == case.launches, (case, calls)
    return [relative(a, b) for a, b in zip(found, exact(case, module.cpu(), given, sent), strict=True)]


def length_errors(case: Whole, time: int) -> list[float]:
    """With no position, or one: shapes and values of outputs and gradients."""
    return compare(replace(case, time=time), torch.float32)


def stride_errors(case: Whole) -> list[float]:
    """Inputs, and gradients of outputs, whose memory is in another order, or the same everywhere."""
    module, _ = built(case)
    given = {n: x.transpose(1, -1).contiguous().transpose(1, -1) for n, x in inputs(case).items()}
    sent = [torch.ones((), dtype=torch.float64).expand(case.batch, case.time, *case.sizes.values())]
    found, _ = run(case, module, given, sent)
    return [relative(a, b) for a, b in zip(found, exact(case, module, given, sent), strict=True)]


def wanted_errors(case: Whole) -> list[float]:
    """Where a gradient is asked for of one input alone: how many others were stored; and its error."""
    module, text = built(case)
    stored: list[int] = []
    memory = text._sequence_stored

    def noted(*given: Any) -> Any:
        found = memory(*given)
        stored.append(sum(x.numel() > 0 for x in found))
        return found

    vars(text)["_sequence_stored"] = noted
    given = inputs(case)
    first = next(iter(given.values())).requires_grad_()
    outputs = real(module.requires_grad_(False)(*given.values()))
    sent = cotangents(outputs)
    (found,) = torch.autograd.grad(outputs, [first], [g.to(y) for g, y in zip(sent, outputs, strict=True)])
    return [sum(stored) - 1.0, relative(found, exact(case, module, given, sent)[len(outputs)])]


def twice(case: Whole) -> list[float]:
    """The largest difference of two runs."""
    found = [run(case, built(case)[0], inputs(case))[0] for _ in range(2)]
    return [float((a - b).abs().max()) for a, b in zip(*found, strict=True)]


def split_errors(case: Whole) -> list[float]:
    """A sequence in two pieces and a last step, with gradients of what is between them, and packed with another, against
    the torch module in float64."""
    found = []
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):
        module = built(case, backend)[0].to(dtype)
        given = [x.to(dtype).requires_grad_() for x in inputs(replace(case, time=9)).values()]
        first, state = module(*(x[:, :4] for x in given), return_state=True)
        second, state = module(*(x[:, 4:8] for x in given), state=state, return_state=True)
        last, state = module.step(*(x[:, 8] for x in given), state)
        packed = module(*(x[:1] for x in given), cu_seqlens=[0, 2, 2, 9])
        outputs = [torch.cat([first, second, last.unsqueeze(1)], 1), packed, *(x for x in state.values() if isinstance(x, Tensor))]
        wanted = [*given, *module.parameters()]
        slopes = torch.autograd.grad(outputs, wanted, [g.to(dtype) for g in cotangents(outputs)])
        found.append([*(y.detach() for y in outputs), *slopes])
    return [relative(a, b.numpy()) for a, b in zip(*found, strict=True)]


def launched(case: Whole) -> tuple[Any, list[Any]]:
    """The Python module of a case, and what each launch of a group forwards was given."""
    module, text = built(case)
    seen: list[Any] = []
    first = text._sequence_run
    vars(text)["_sequence_run"] = lambda launch, *rest: (seen.append((launch, *rest)), first(launch, *rest))[1]
    module(*inputs(case).values())
    vars(text)["_sequence_run"] = first
    return text, seen


def operator_errors(case: Whole) -> list[float]:
    """0 where what `torch.library.opcheck` tests of an operator holds: schema, derivative, shapes, tracing."""
    found = {}
    text, seen = launched(case)
    for launch, tensors, dtype in seen:
        given = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in tensors]
        operator = getattr(getattr(torch.ops, text.OPS), launch.plan.name)
        more = launch.packed()[0]
        sizes = [*launch.sizes.values(), *launch.counts]
        found |= torch.library.opcheck(operator, (*given, sizes, launch.numbers, dtype, *more))
    return [float(result != "SUCCESS") for result in found.values()]


def alone_errors(case: Whole, name: str) -> list[float]:
    """A leaf that has a batch of 1 is as one that has the same for each sequence: the errors of outputs and gradients."""
    text, ((launch, tensors, dtype), *_) = launched(case)
    place = list(inputs(case)).index(name)
    found = []
    for alone in (False, True):
        given = [x.detach().clone() for x in tensors]
        given[place] = (given[place][:1] if alone else given[place]).requires_grad_()
        y = vars(text)[launch.plan.name](*given, [*launch.sizes.values(), *launch.counts], launch.numbers, dtype)
        (slope,) = torch.autograd.grad(y, [given[place]], cotangents([y])[0].float())
        found.append([y.detach(), slope.sum(0, keepdim=True)])
    return [relative(a, b.double().numpy()) for a, b in zip(*found, strict=True)]


def traced_errors(case: Whole) -> list[float]:
    """Traced as one graph, with gradients, and exported for any length, against the module itself."""
    module, _ = built(case)
    given = inputs(case)
    wanted, sent = run(case, module, given)
    traced = torch.compile(module, backend="aot_eager", fullgraph=True)
    outputs = real(traced(*given.values()))
    names = [x for x in (*given.values(), *module.parameters()) if x.requires_grad]
    found = [*outputs, *torch.autograd.grad(outputs, names, [g.to(y) for g, y in zip(sent, outputs, strict=True)])]
    time = torch.export.Dim("time", min=2, max=4096)
    dims = [{1: time} for _ in given]
    exported = torch.export.export(module, tuple(x.detach() for x in given.values()), dynamic_shapes=(*dims,)).module()
    longer = inputs(replace(case, time=11))
    with torch.no_grad():
        again, long = real(exported(*longer.values())), real(module(*longer.values()))
    return [relative(a, b.detach().double().numpy()) for a, b in zip([*found, *again], [*wanted, *long], strict=True)]


def interpreted() -> dict[str, list[float]]:
    """`case dtype` -> errors, from a process in which Triton interprets."""
    return interpret_in("sequences")


def _found() -> Iterator[tuple[str, Callable[[], list[float]]]]:
    """What is asked for, and how it is found."""
    scaled, gate, factors, window = (WHOLE[n] for n in LENGTHS)
    for name, case in WHOLE.items():
        for label in ("float32", *(("float16", "bfloat16") if name in HALVES else ())):
            yield f"{name}, {label}", lambda case=case, label=label: compare(case, DTYPES[label])
    for name in LENGTHS:
        for time in (0, 1):
            yield f"{name}, {time}", lambda name=name, time=time: length_errors(WHOLE[name], time)
    yield "other memory", lambda: stride_errors(gate)
    yield "one gradient", lambda: wanted_errors(scaled)
    yield "a batch of one", lambda: alone_errors(WHOLE["a table of positions, the same for all sequences"], "p")
    yield "again", lambda: twice(WHOLE["many rows"])
    for name in ("a window with a gate", "positions far apart", "two windows of what is computed"):
        yield f"{name}, in pieces", lambda name=name: split_errors(WHOLE[name])
    yield "a stack of layers, in pieces", lambda: split_errors(LAYERS)
    yield "its operator", lambda: [*operator_errors(factors), *operator_errors(window)]
    yield "traced", lambda: [*traced_errors(scaled), *traced_errors(window)]
    for name, (broken, edit) in MUTANTS.items():
        yield name, partial(unless_stopped, partial(compare, WHOLE[broken], torch.float32, edit))


# What is compiled ahead of time: bfloat16 inputs, at lengths of models. Functions are not, because the compiler's own sine
# keeps a table on the stack.
AHEAD: dict[str, tuple[Whole, dict[str, int]]] = {
    "a gate": (WHOLE["a gate"], {"c": 4096}),
    "a layer norm": (WHOLE["a norm with a scale and a shift"], {"c": 4096}),
    "a wide layer norm": (WHOLE["a norm with a scale and a shift"], {"c": 8192}),
    "a gated norm by head": (WHOLE["a norm by head with a scale for each"], {"h": 16, "e": 128}),
    "five outputs": (WHOLE["five outputs of one input"], {"c": 2048}),
    "an average of the past": (WHOLE["an average of the past"], {"c": 2048, "a": 2048}),
    "a softmax": (WHOLE["a share of each feature"], {"c": 512}),
    "moments": (WHOLE["moments of one's own"], {"c": 1000}),
    "gated linear attention": (WHOLE["gated linear attention"], {"h": 16, "d": 64, "e": 128}),
    "a delta rule": (WHOLE["a delta rule"], {"h": 16, "d": 128, "e": 128}),
    "a window with a gate": (WHOLE["a window with a gate"], {"c": 2048}),
}
PACKED = ("a window with a gate",)  # also for packed sequences
TABLE = Path(__file__).with_name("sequences.txt")


def compiled(targets: list[str]) -> Iterator[dict[str, Any]]:
    """What both kernels of every group take at the tile that is their default."""
    for name, (case, lengths) in AHEAD.items():
        _, text = built(case)
        for plan, target in product((x for n, x in vars(text).items() if n.endswith("_sequence_plan")), targets):
            launch = text._launch_of(plan, [8, *(2048 if i == "t" else lengths[i] for i in plan.space)], [], [])
            for which, kernel, most in (("", plan.forward, text.SEQUENCE_TILE), (" adjoint", plan.adjoint, text.SEQUENCE_BACK)):
                constants = dict(launch.blocks(launch.rows(launch.kept()), most))
                options = {"num_warps": text._sequence_warps(constants, most)}
                types, fixed, wide = _arguments(plan, kernel, which != "")
                ways: dict[str, dict[str, Any]] = {"": {}}
                if plan.windows:
                    types["number"] = "*i64"
                    ways = {"": {"PACKED": False, "number": None}, **({", packed": {"PACKED": True}} if name in PACKED else {})}
                for way, more in ways.items():
                    used = compile_one(kernel, types, constants | fixed | more, target, wide, **options)
                    yield {"name": f"{name}, {plan.name.split('_')[-2]}{way}{which} {target}", **used}


    for kernel, target in product((window._window_source_kernel, window._window_taps_kernel), targets):
        types = {"grad": "*fp32", "w": "*fp32", "x": "*bf16", "d_x": "*bf16", "sums": "*fp32"}
        tile = {"BL": lanes.WINDOW_LANES, "BR": lanes.WINDOW_TILE // lanes.WINDOW_LANES, "step": 1, "skip": 0}
        yield {"name": f"{kernel.__name__.strip('_').removesuffix('_kernel').replace('_', ' ')} {target}",
               **compile_one(kernel, types, tile, target, ("L",), num_warps=4)}  # fmt: skip


def _arguments(plan: Any, kernel: Any, back: bool) -> tuple[dict[str, str], dict[str, Any], tuple[str, ...]]:
    """Of a kernel: the types of its arguments, those that are constants, and those that are multiples of 16."""
    names = kernel.arg_names
    dims = [*plan.leaves, *(d for d, _ in plan.outputs if back), *plan.given()[len(plan.leaves) :]]
    others = [d for _, d in plan.gradients] if back else [d for d, _ in plan.outputs]
    narrow = [True] * len(dims) + ["part" not in d for d in others]
    names = [n for n in names if n != "number"]
    types = {n: "*bf16" if x else "*fp32" for n, x in zip(names, narrow, strict=False)}
    steps = names[len(narrow) : names.index(f"{plan.space[0]}_count")]
    ends = iter(steps)
    last = [[next(ends) for _ in d.split()][-1] for d in dims]
    numbers = names[names.index("STEPS" if back else "ROWS") + 1 + 2 * len(plan.windows) :]
    types |= {n: "fp32" for n, kind in zip(numbers, plan.numbers, strict=False) if kind == "f"}
    fixed = dict.fromkeys(last, 1) | {n: True for n in names if n.startswith("WANTS_")}
    wide = (*(n for n in steps if n not in last), *(f"{i}_count" for i in plan.space if i != "t"), "ROWS")
    return types, fixed, wide


def compiled_report(targets: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """`kernel target` -> what it takes, from a process that compiles."""
    return compile_in("sequences", "--compile", ",".join(targets))


if __name__ == "__main__":
    answer(compiled, compiled_report, TABLE, tuple(TARGETS))
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    for name, found in _found():
        if not sys.argv[1:] or name.rpartition(", ")[0] in sys.argv[1:] or name in sys.argv[1:]:
            print(json.dumps([name, found()]), flush=True)
