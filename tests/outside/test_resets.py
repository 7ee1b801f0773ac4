"""A decay of exactly 0 that does not depend on time, as exp(-inf), as a choice and under a power of 0, in every form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.forms import FORMS

SUM = "mixer m(x[t,c], g[c]) -> y[t]:\n    S[t,c] = {} * S[t-1] + x\n    y[t]   = sum[c] S\n"
DECAYS = {"exp(g)": [0.0, 1.0, -20.0], "exp(g)^c": [0.0, 0.0, -20.0], "where(c == 0, 0, exp(g))": [-1.0, 0.0, -200.0]}
SHOWN = {
    "exp(g)": lambda g: g.exp(),
    "exp(g)^c": lambda g: g.exp() ** torch.arange(3),
    "where(c == 0, 0, exp(g))": lambda g: torch.where(torch.arange(3) == 0, 0.0, g.exp()),
}


def by_hand(decay: Tensor, x: Tensor) -> Tensor:
    state, rows = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        state = decay * state + x[:, t]
        rows.append(state.sum(-1))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("form", FORMS)
def test_a_reset_gives_no_nan(decay: str, form: str) -> None:
    program = seqdsl.load(SUM.format(decay))
    try:
        program.derived(form)
    except SeqError:
        pytest.skip(f"there is no {form} form")
    x = torch.randn(1, 70, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    g = torch.tensor([[-torch.inf, *DECAYS[decay][1:]]], dtype=torch.float64).clamp(max=0).requires_grad_()
    found, wanted = program.module(form)(x, g), by_hand(SHOWN[decay](g), x)
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-12)
    d_x, d_g = torch.autograd.grad(found.square().sum(), (x, g))
    w_x, w_g = torch.autograd.grad(wanted.square().sum(), (x, g))
    assert torch.allclose(d_x, w_x, rtol=1e-9, atol=1e-10)
    assert torch.isfinite(d_g).all() and torch.allclose(d_g[:, 1:], w_g[:, 1:], rtol=1e-9, atol=1e-10)
