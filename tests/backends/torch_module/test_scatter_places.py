"""Sums over the entries that data sends to a place are scatters, and no table of all places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from seqdsl.backends.torch_module import emit_module

import seqdsl
from tests.backends.torch_module.harness import module_of

PLACES = torch.tensor([2, 0, 2, -1, 7, 1, 2])  # two of them outside


@pytest.mark.parametrize(
    ("body", "scattered"),
    [("sum[t | place == p] x", True),
     ("sum[t | p == place - 1] x * (t + 1)", True),
     ("sum[t | place == p and keep] 1", True),
     ("sum[t | place == p and x > 0] x * w[p] / 2", True),
     ("sum[t | place == p] exp(x - w[p])", True),
     ("sum[t | place == p] w[place]", True),
     ("sum[t | place == p and t <= p] x", False),
     ("sum[t | place < p] x", False)],
)  # fmt: skip
def test_a_sum_over_what_is_sent_to_a_place(body: str, scattered: bool) -> None:
    text = f"mixer f(x[t], place[t]: int, keep[t]: bool, w[p]) -> y[p]:\n    y[p] = {body} + w\n"
    system = seqdsl.load(text, "f").system()
    x, w = torch.linspace(-1.1, 2, 7, dtype=torch.float64), torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
    inputs = {"x": x, "place": PLACES, "keep": PLACES > 0, "w": w}
    wanted = seqdsl.load(text, "f").interpret(inputs={n: v.numpy() for n, v in inputs.items()})["outputs"]["y"]
    given = [v[None].requires_grad_(v.is_floating_point()) for v in inputs.values()]
    found = module_of(system)(*given)[0]
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-12)
    assert ("_segment_sum(" in emit_module(system, class_name="F")) == scattered
    torch.autograd.gradcheck(lambda x, w: module_of(system)(x, given[1], given[2], w), (given[0], given[3]))
