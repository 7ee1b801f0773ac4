"""Conditions that an operand stands under: they say nothing of its other positions, which other readers want."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqdsl
from tests.backends.torch_module.harness import as_tuple

# Each branch is taken at some entries, and reads along an axis what stands at the others.
ALONG = {
    "running": "cumsum[t](sqrt(abs(x) + 0.1))",
    "within a row": "cumsum[c](log(abs(x) + 0.1))",
    "softmax": "softmax[c](log(abs(x) + 0.2))",
    "norm": "rms_norm[c](log(abs(x) + 0.2))",
    "rank": "rank[c](1 / (abs(x) + 1))",
    "sum": "sum[c] 1 / (abs(x) + 1)",
}


@pytest.mark.parametrize("branch", ALONG.values(), ids=ALONG)
def test_a_branch_that_reads_along_the_axis_of_its_condition(branch: str) -> None:
    """`where(x > 0, softmax[c](log(..)), 0)`: the softmax is over all entries, whatever the condition is there."""
    _agrees(f"mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = where(x > 0, {branch}, 0)", ("recurrent",))


def test_a_rate_under_a_condition_reads_a_recurrence() -> None:
    """What is written where `on` holds is normalised by a recurrence that goes through all positions."""
    text = """
mixer m(q[t,d], k[t,d], v[t,e], g[t], on[t]: bool) -> o[t,e]:
    n[t,d]   = exp(g) * n[t-1] + k^2
    r[t,e]   = sum[d] k * S[t-1] / (1 + abs(sum[d] k * n[t-1]))
    S[t,d,e] = exp(g) * (S[t-1] + where(on, 0.3 * k * (v - r), 0))
    o[t,e]   = sum[d] q * S
"""
    _agrees(text, ("recurrent", "scan", "chunkwise", "quadratic"))


def test_a_condition_without_an_index_keeps_gradients_numbers() -> None:
    """`where(a > 0, sqrt(a), 0)` of one number, and of one entry."""
    sides = "where(a > 0, sqrt(a), x) + where(x[0,0] > 0, log(x[0,0]), 0)"
    program = seqdsl.load(f"mixer m(x[t,c], a) -> y[t,c]:\n    y[t,c] = {sides}")
    x, a = -torch.ones(1, 3, 2, requires_grad=True), -torch.ones(1, requires_grad=True)
    for found in torch.autograd.grad(program.module()(x, a).sum(), (x, a), allow_unused=True, materialize_grads=True):
        assert found.isfinite().all()


def _agrees(text: str, forms: tuple[str, ...]) -> None:
    """Every form's module gives what the equations give."""
    program, generator = seqdsl.load(text), np.random.default_rng(0)
    lengths = {"t": 9, "c": 4, "d": 3, "e": 2}
    inputs = {}
    for tensor in program.system().inputs():
        drawn = generator.standard_normal([lengths[i] for i in tensor.indices])
        inputs[tensor.name] = drawn > 0 if tensor.dtype == "bool" else drawn
    wanted = program.interpret(inputs)["outputs"].values()
    for form in forms:
        found = program.module(form)(*(torch.tensor(x)[None] for x in inputs.values()))
        for a, b in zip(as_tuple(found), wanted, strict=True):
            assert np.abs(a[0].numpy() - b).max() < 1e-12
