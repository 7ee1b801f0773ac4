"""Scans over other rings than (+, *), against literal loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.ring_scan import ring_scan

from .loops import check_against, relative

F64 = torch.float64
RINGS = {
    "max_plus": (torch.maximum, torch.add),
    "min_plus": (torch.minimum, torch.add),
    "logaddexp_plus": (torch.logaddexp, torch.add),
    "max_times": (torch.maximum, torch.mul),
}


def loop(a: Tensor, b: Tensor, state: Tensor, ring: str, reverse: bool) -> Tensor:
    add, mul = RINGS[ring]
    found = {}
    for t in range(b.shape[1])[:: -1 if reverse else 1]:
        state = add(mul(a[:, t], state), b[:, t])
        found[t] = state
    return torch.stack([found[t] for t in range(b.shape[1])], 1)


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("time", [1, 16, 33, 600])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan(ring: str, time: int, reverse: bool) -> None:
    a, b = torch.randn(2, time, 3, dtype=F64) - 0.5, torch.randn(2, time, 3, dtype=F64)
    given = (a.abs() if ring == "max_times" else a), b.abs(), torch.randn(2, 3, dtype=F64).abs()
    check_against(lambda *x: ring_scan(*x, ring=ring, reverse=reverse), lambda *x: loop(*x, ring, reverse), given)


def test_from_nothing_with_resets_and_infinities() -> None:
    """A state of -inf, decays of -inf, and entries of -inf: no NaN in values or gradients."""
    a = torch.where(torch.rand(2, 70, 3) < 0.2, -torch.inf, -torch.rand(2, 70, 3)).double()
    b = torch.where(torch.rand(2, 70, 3) < 0.5, -torch.inf, torch.randn(2, 70, 3)).double()
    start = torch.full((2, 3), -torch.inf, dtype=F64)
    for ring in ("max_plus", "logaddexp_plus"):
        given = [x.clone().requires_grad_() for x in (a, b, start)]
        h = ring_scan(*given, ring=ring)
        assert torch.equal(h.isinf(), loop(a, b, start, ring, False).isinf()) and not h.isnan().any()
        finite = h.isfinite()
        assert relative(h[finite], loop(a, b, start, ring, False)[finite]) < 1e-13
        h[finite].sum().backward()
        assert all(x.grad is not None and not x.grad.isnan().any() for x in given)


def test_conditions_and_empty() -> None:
    on, keep = torch.rand(2, 50, 3) < 0.1, torch.rand(2, 50, 3) < 0.8
    state, expected = torch.zeros(2, 3, dtype=torch.bool), []
    for t in range(50):
        state = on[:, t] | keep[:, t] & state
        expected.append(state)
    assert torch.equal(ring_scan(keep, on, torch.zeros(2, 3, dtype=torch.bool), ring="or_and"), torch.stack(expected, 1))
    assert ring_scan(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3), torch.zeros(2, 3), ring="max_plus").shape == (2, 0, 3)


def test_nothing_added_to_nothing_sends_nothing_back() -> None:
    x = torch.full((1, 5, 2), -torch.inf, requires_grad=True)
    h = ring_scan(torch.zeros(1, 5, 2), x, torch.full((1, 2), -torch.inf), ring="logaddexp_plus")
    assert h.isneginf().all() and torch.equal(torch.autograd.grad(h.sum(), x)[0], torch.zeros(1, 5, 2))
