"""What a state keeps of a whole past: rows that grow, caches beside base cases, and steps of a loop that read a cache."""

from __future__ import annotations

import pytest
import torch

from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.system import System
from seqdsl.semantics import load_system
from tests.backends.torch_module.harness import gap, module_of, piece, random_inputs
from tests.ir.rows import GROWING, system_of

BASE = "mixer m(x[t,c]) -> y[t,c]:\n    index u over t\n    h[-1,c] = 2\n    "
CACHES = [
    "h[t,c] = h[t-1] / 2 + x\n    y[t,c] = h[t-1] + sum[u | u < t] h[u]",
    "h[t,c] = tanh(h[t-1] / 2 + x)\n    y[t,c] = h[t-2] + h[t // 3 - 1] + sum[u | u < t] h[u]",
    "h[t,c] = tanh(h[t-1] / 2 + x)\n    y[t,c] = sum[j: 3] h[t-j-1] + sum[u | u < t] h[u]",
    "h[t,c] = tanh(h[t-1] / 2 + x + sum[u | u < t] h[u-1])\n    y[t,c] = h",
    "h[t,c] = tanh(x + sum[u] p * x[u] * h[t-1])\n    p[t,u] = softmax[u | u <= t](sum[c] x * x[u])\n    y[t,c] = h",
]
SYSTEMS = [system_of(*lines) for _, lines in GROWING] + [load_system(BASE + lines + "\n") for lines in CACHES]
NAMES = [lines[-2] for _, lines in GROWING] + CACHES


@pytest.mark.parametrize("form", ["recurrent", "scan", "chunkwise"])
@pytest.mark.parametrize("system", SYSTEMS, ids=NAMES)
def test_what_has_gone_before_is_known_at_each_step(system: System, form: str) -> None:
    try:
        module = module_of(derive(system, form).system, form)
    except SeqError as error:
        assert form != "recurrent", error
        return
    inputs = random_inputs(system, batch=1)
    whole, last = module(*inputs, return_state=True)
    wanted = interpret(system, inputs={t.name: x[0].numpy() for t, x in zip(system.inputs(), inputs, strict=True)})
    assert gap(whole[0], torch.from_numpy(wanted["outputs"][system.outputs[0]])) < 1e-10
    for seen in (0, 1, 3):
        state = module(*piece(system, inputs, 0, seen), return_state=True)[1]
        for t in range(seen, 7):
            at = [x if d is None else x.select(1, t) for x, d in zip(inputs, streamed(system), strict=True)]
            y, state = module.step(*at, state)
            assert gap(y, whole[:, t]) < 1e-10
        assert gap(state, last) < 1e-10


@pytest.mark.parametrize("system", SYSTEMS, ids=NAMES)
def test_gradients_go_through_what_has_gone_before(system: System) -> None:
    inputs = random_inputs(system, grad=True)
    module = module_of(derive(system, "recurrent").system)
    real = [x for x, d in zip(inputs, streamed(system), strict=True) if d is not None]
    weight = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]
    wanted = torch.autograd.grad((module(*inputs) * weight).sum(), real, materialize_grads=True)
    first, state = module(*piece(system, inputs, 0, 3), return_state=True)
    second = module(*piece(system, inputs, 3, 7), state=state)
    found = torch.autograd.grad((first * weight[:3]).sum() + (second * weight[3:]).sum(), real, materialize_grads=True)
    for a, b in zip(found, wanted, strict=True):
        assert gap(a, b) < 1e-10


def streamed(system: System) -> list[int | None]:
    """The dimension of time of each input."""
    return [1 if "t" in t.indices else None for t in system.inputs()]
