"""A sum of nothing is 0, whatever its factors are there, and has no gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqdsl
from seqdsl.ir.interpreter import interpret

TEXTS = {
    "the mean of earlier positions": "m(x[t]) -> y[t]:\n    index s over t\n    y[t] = sum[s | s < t] x[s] / t",
    "a logarithm beside": "m(x[t]) -> y[t]:\n    index s over t\n    y[t] = sum[s | s < t] x[s] * log(t)",
    "as many channels as are told": "m(n[t]: int, x[t,c]) -> y[t]:\n    y[t] = sum[c | c < n] x / n",
    "a mean of as many": "m(n[t]: int, x[t,c]) -> y[t]:\n    y[t] = mean[c | c < n] x / n",
    "a guard without the summed index": "m(n[t]: int, x[t,c]) -> y[t]:\n    y[t] = sum[c | n > 0] x / n",
    "a window, and a guard beside": (
        "m(n[t]: int, x[t]) -> y[t]:\n    index s over t\n"
        "    y[t] = sum[s | t - 3 < s and s <= t and n[t] > 0] x[s] / n[t] / (1 + t - s)"
    ),
    "never empty": "m(x[t], z[t]) -> y[t]:\n    index s over t\n    y[t] = sum[s | s <= t] x[s] / z[t]",
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("time", [1, 7])
def test_values_are_those_of_the_equations_and_gradients_are_finite(name: str, time: int) -> None:
    program = seqdsl.load(f"mixer {TEXTS[name]}\n")
    rng, lengths = np.random.default_rng(time), {"t": time, "c": 3}
    given = {
        x.name: rng.integers(0, 3, [lengths[i] for i in x.indices]) if x.dtype == "int"
        else rng.standard_normal([lengths[i] for i in x.indices]) for x in program.system().inputs()
    }  # fmt: skip
    expected = interpret(program.system(), inputs=given)["outputs"]["y"]
    inputs = [torch.from_numpy(v)[None] for v in given.values()]
    reals = [x.requires_grad_() for x in inputs if x.is_floating_point()]
    found = program.module().double()(*inputs)
    assert np.allclose(found[0].detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    assert all(g.isfinite().all() for g in torch.autograd.grad(found.sum(), reals))


def test_where_something_always_counts_nothing_is_asked() -> None:
    text = seqdsl.load(f"mixer {TEXTS['never empty']}\n").source()
    assert ".any(" not in text
