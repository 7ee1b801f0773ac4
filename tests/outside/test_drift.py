"""4096 positions in float32 with decays near 1, all equal: the rounding of one decay must not add up over the steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.forms import FORMS

TIME = 4096
SOURCES = {
    "constant": "mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = 0.999 * y[t-1] + x\n",
    "gate": (
        "mixer m(x[t,c]) -> y[t,c]:\n    param p[c] = 7\n    y[t,c] = sigmoid(p) * y[t-1] + (1 - sigmoid(p)) * x\n"
    ),
    "rate": "mixer m(x[t,c]) -> y[t,c]:\n    param p[c] = -7\n    y[t,c] = exp(-exp(p)) * y[t-1] + x\n",
    "growth": "mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = 1.0002 * y[t-1] + x\n",
    "matrix": """
mixer m(q[t,d], k[t,d], v[t,e]) -> o[t,e]:
    S[t,d,e] = 0.999 * S[t-1] + k * v
    o[t,e]   = sum[d] q * S
""",
}
LENGTHS = {"t": TIME, "c": 2, "d": 4, "e": 3}


def forms_of(source: str) -> list[str]:
    program = seqdsl.load(source)
    found = []
    for form in FORMS:
        try:
            program.derived(form)
        except SeqError:
            continue
        found.append(form)
    return found


def inputs_of(source: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = seqdsl.load(source).system().inputs()
    return [torch.randn(1, *(LENGTHS[i] for i in t.indices), generator=generator) for t in inputs]


def by_hand(name: str, inputs: list[Tensor]) -> Tensor:
    """The equation in float64, one step after another."""
    seven, minus = torch.tensor(7.0).double(), torch.tensor(-7.0).double()
    decay = {"gate": seven.sigmoid(), "rate": torch.exp(-minus.exp()), "growth": 1.0002}.get(name, 0.999)
    if name == "matrix":
        q, k, v = inputs
        state, rows = torch.zeros(1, 4, 3, dtype=torch.float64), []
        for t in range(TIME):
            state = decay * state + k[:, t, :, None] * v[:, t, None, :]
            rows.append((q[:, t, :, None] * state).sum(1))
        return torch.stack(rows, 1)
    (x,) = inputs
    y, rows = torch.zeros(1, 2, dtype=torch.float64), []
    for t in range(TIME):
        y = decay * y + x[:, t] * ((-seven).sigmoid() if name == "gate" else 1)
        rows.append(y)
    return torch.stack(rows, 1)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).detach().norm() / wanted.detach().norm())


def module_of(name: str, form: str) -> Any:
    return seqdsl.load(SOURCES[name]).module(form, **({"c": 2} if name in ("gate", "rate") else {}))


@pytest.mark.parametrize(("name", "form"), [(n, f) for n, s in SOURCES.items() for f in forms_of(s)])
def test_values_and_gradients(name: str, form: str) -> None:
    inputs = inputs_of(SOURCES[name])
    leaves = [x.clone().requires_grad_() for x in inputs]
    wide = [x.double().requires_grad_() for x in inputs]
    found, wanted = module_of(name, form)(*leaves), by_hand(name, wide)
    assert error(found, wanted) < 2e-6
    weight = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (found * weight).sum().backward()
    (wanted * weight).sum().backward()
    for x, y in zip(leaves, wide, strict=True):
        assert x.grad is not None and y.grad is not None
        assert error(x.grad, y.grad) < 1e-5


@pytest.mark.parametrize(("name", "form"), [("rate", "scan"), ("matrix", "chunkwise")])
def test_one_step_at_a_time(name: str, form: str) -> None:
    inputs = inputs_of(SOURCES[name])
    module = module_of(name, form)
    with torch.no_grad():
        state = module(*(x[:, :0] for x in inputs), return_state=True)[1]
        rows = []
        for t in range(TIME):
            y, state = module.step(*(x[:, t] for x in inputs), state)
            rows.append(y)
        assert error(torch.stack(rows, 1), by_hand(name, inputs)) < 2e-6


def test_weights_that_a_recurrence_multiplies_sum_to_one() -> None:
    """The forward algorithm: levels of thousands, and a gradient that is the product of all steps' weights."""
    program = seqdsl.load("""
mixer m(x[t,n], A[t,n,m]) -> z[t,n]:
    index m over n
    z[-1,n] = 0
    z[t,n] = logsumexp[m](z[t-1,m] + A) + x
""")
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(s, generator=generator) for s in ((1, 1024, 4), (1, 1024, 4, 4), (1, 1024, 4))]

    def gradients(form: str, dtype: torch.dtype) -> list[Tensor]:
        x, A, weight = (v.to(dtype, copy=True).requires_grad_() for v in given)
        (program.module(form)(x, A) * weight).sum().backward()
        return [v.grad for v in (x, A) if v.grad is not None]

    wanted = gradients("recurrent", torch.float64)
    for found, g in zip(gradients("auto", torch.float32), wanted, strict=True):
        assert error(found, g) < 6e-5
