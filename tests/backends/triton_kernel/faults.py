"""Inputs of every kind that a kernel may be given: strided, empty, elsewhere, as wide as float64.

Run as a program, under Triton's interpreter, it prints one JSON object for each function of the kernels and each fault:
"right", or what was wrong. Entry points elsewhere: `FAULTS`, `FUNCTIONS`, `interpreted`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.backends.triton_kernel import reads
from tests.backends.triton_kernel.cases import Attend, Read, Rows, Scan, Solve, SolveRead
from tests.backends.triton_kernel.processes import interpret_in

FUNCTIONS: dict[str, Any] = {
    "scan": Scan((2, 9, 3), (2, 9, 3)),
    "linear attention": Attend(2, 9, 1, 4, 5, gate=4),
    "linear attention, a decay for each head": Attend(2, 9, 1, 4, 5, gate=1),
    "read": Read(2, 9, 1, 4, 5, (2, 9, 1, 4, 5)),
    "solve": Solve(2, 9, 1, 4, 5, gate=1),
    "solve and read": SolveRead(2, 9, 1, 4, 5, gate=4),
    "rows": Rows((2, 9, 5), (2, 9, 1)),
    "softmax": reads.Read(reads.READS["causal"].source, {"t": 9, "h": 1, "d": 4, "e": 5}),
}


def _called(name: str) -> tuple[Callable[..., Any], list[Tensor | None]]:
    """What is called, and its inputs."""
    torch.manual_seed(0)
    case = FUNCTIONS[name]
    if isinstance(case, reads.Read):
        return reads.built(case)[0], [x.float() for x in reads.inputs(case, torch.float32)]
    return case.fast(), case.inputs()


def _run(function: Callable[..., Any], inputs: list[Tensor | None], total: bool = False) -> list[Tensor]:
    """Outputs and gradients; `total`: of the sum, whose gradient is one number repeated by strides of 0."""
    given = [x if x is None else x.detach().requires_grad_() for x in inputs]
    found = function(*given)
    outputs = [found] if isinstance(found, Tensor) else list(found)
    wanted = [x for x in given if x is not None]
    if total:
        return [*outputs, *torch.autograd.grad(sum(y.sum() for y in outputs), wanted)]  # type: ignore[arg-type]
    ones = [torch.ones_like(y) for y in outputs]
    return [*outputs, *torch.autograd.grad(outputs, wanted, ones, allow_unused=True, materialize_grads=True)]


def strided(name: str) -> str:
    """Every second entry of memory that holds NaN between, and axes in another order."""
    function, inputs = _called(name)

    def view(x: Tensor) -> Tensor:
        apart = torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0]
        return apart.movedim(0, -1).contiguous().movedim(-1, 0) if x.dim() > 2 else apart

    other = _run(function, [x if x is None else view(x) for x in inputs])
    return _same(other, _run(function, inputs))


def repeated(name: str) -> str:
    """A gradient with strides of 0."""
    function, inputs = _called(name)
    return _same(_run(function, inputs, total=True), _run(function, inputs))


def _without(name: str, axis: int) -> str:
    function, inputs = _called(name)
    cut = [x if x is None or x.shape[axis : axis + 1] == (1,) else x.narrow(axis, 0, 0) for x in inputs]
    if axis == 1:  # a first state has no time
        cut = [x if x is None or x.dim() < 4 or name in ("scan", "rows", "softmax") or k < _timed(name) else inputs[k]
               for k, x in enumerate(cut)]  # fmt: skip
        if name == "scan":
            cut[2] = inputs[2]
    full, found = _run(function, inputs), _run(function, cut)
    for a, b in zip(full, found, strict=True):
        if a.dim() != b.dim() or not b.isfinite().all():
            return f"{list(a.shape)} became {list(b.shape)}"
    return "right"


def _timed(name: str) -> int:
    """How many of the inputs have a time."""
    return 5 if name == "solve and read" else 4


def nothing_in_time(name: str) -> str:
    return _without(name, 1)


def nothing_in_the_batch(name: str) -> str:
    return _without(name, 0)


def elsewhere(name: str) -> str:
    """One operand on another device."""
    function, inputs = _called(name)
    inputs[1] = inputs[1].to("meta")  # type: ignore[union-attr]
    try:
        function(*inputs)
    except (ValueError, RuntimeError) as error:  # PyTorch's own, where an operation of it comes first
        return "right" if "on meta" in str(error) or "device meta" in str(error) else str(error)
    return "no error"


def wide(name: str) -> str:
    """float64 stays float64, and as exact."""
    function, inputs = _called(name)
    outputs = _run(function, [x if x is None else x.double() for x in inputs])
    if any(y.dtype != torch.float64 for y in outputs):
        return str([y.dtype for y in outputs])
    narrow = _run(function, inputs)
    close = all(torch.allclose(a, b.double(), rtol=1e-4, atol=1e-5) for a, b in zip(outputs, narrow, strict=True))
    return "right" if close else "another result"


def _same(found: list[Tensor], wanted: list[Tensor]) -> str:
    return "right" if all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)) else "another result"


FAULTS = {f.__name__: f for f in (strided, repeated, nothing_in_time, nothing_in_the_batch, elsewhere, wide)}


def interpreted() -> dict[str, str]:
    """`fault, function` -> what came of it, from a process in which Triton interprets."""
    return interpret_in("faults")


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    for fault, check in FAULTS.items():
        for name in sys.argv[1:] or FUNCTIONS:
            try:
                found = check(name)
            except Exception as error:  # which is what is to be found out
                found = f"{type(error).__name__}: {error}"
            print(json.dumps([f"{fault}, {name}", found]), flush=True)
