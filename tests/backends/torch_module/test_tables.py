"""What depends on sizes and positions alone is rounded once, and nothing else changes by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqdsl

# Angles of thousands of radians, a sum that cancels, a matrix that is inverted, an iteration, complex powers.
SENSITIVE = {
    "angles": """mixer m(x[t,d]) -> y[t,d]:
    y[t,d] = x * cos(t * 3 ^ (-d / |d|)) + x[d+1] * sin(t * 3 ^ (-d / |d|))
""",
    "cancelled": """mixer m(x[t,d]) -> y[t,d]:
    w[t,d] = exp(0.001 * (t + d)) - exp(0.001 * t)
    y[t,d] = x * w
""",
    "inverse": """mixer m(x[t,d]) -> y[t,n]:
    index m over n
    A[n: 6, m] = 1 / (n + m + 1) + 0.001 * (n == m)
    b[n]       = solve[m -> n](A[m,n], exp(0.3 * m))
    y[t,n]     = b * sum[d] x
""",
    "iterated": """mixer m(x[t,d]) -> y[t,d]:
    z[-1,d]    = 0.3 + 0.01 * d
    z[i: 12, d] = 3.7 * z[i-1] * (1 - z[i-1])
    y[t,d]     = x * z[11]
""",
    "complex": """mixer m(x[t,d]) -> y[t,d]:
    w[t,d] = exp(1i * t * (2 + d) / 3)
    y[t,d] = re(w * x)
""",
    "scanned": """mixer m(x[t,d]) -> h[t,d]:
    h[t,d] = cos(0.7 * t + d) * h[t-1] + x
""",
}
FORM = {"scanned": ("scan", "recurrent")}


def worst(text: str, form: str, time: int) -> float:
    """The largest relative RMS error of a float32 module over its outputs."""
    program = seqdsl.load(text)
    x = torch.randn(1, time, 4, generator=torch.Generator().manual_seed(0))
    truth = next(iter(program.interpret(inputs={"x": x[0].double().numpy()})["outputs"].values()))
    found = program.module(form)(x)[0].double().numpy()
    return float(np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2)))


@pytest.mark.parametrize("name", SENSITIVE)
def test_float32_is_as_good_as_its_operands(name: str) -> None:
    for form in FORM.get(name, ("recurrent",)):
        assert worst(SENSITIVE[name], form, 3000) < 5e-7


def test_a_memory_whose_matrix_is_an_exponential() -> None:
    u = torch.randn(1, 300, generator=torch.Generator().manual_seed(0))
    program = seqdsl.load("lmu", "lmu")
    truth = program.interpret(inputs={"u": u[0].double().numpy()}, sizes={"N": 16, "theta": 300})["outputs"]["x"]
    for form, most in (("scan", 5e-6), ("convolution", 5e-7)):  # the scan's powers, in float32, lose a digit of their own
        found = program.module(form, N=16, theta=300)(u)[0].double().numpy()
        assert np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2)) < most


def test_a_table_is_computed_once_for_two_calls() -> None:
    text = seqdsl.load("rope", "rope_attention").source("chunkwise")
    assert text.count("torch.cos(") == text.count("torch.sin(") == 1


def test_what_a_guard_keeps_from_being_infinite_stays_below_it() -> None:
    text = "mixer m(x[t,d]) -> y[t,d]:\n    y[t,d] = where(t > 0, x * log(t), 0) + sum[d | d > 0] x * (1 / d) ^ 0.5\n"
    x = torch.randn(1, 5, 3, dtype=torch.float64, requires_grad=True)
    seqdsl.load(text).module("recurrent")(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_positions_after_a_state_are_counted_on() -> None:
    module = seqdsl.load("mixer m(x[t,d]) -> y[t,d]:\n    y[t,d] = x * cos(0.5 * t) + 0.1 * x[t-1]\n").module("recurrent")
    x = torch.randn(2, 9, 3)
    whole = module(x)
    first, state = module(x[:, :4], return_state=True)
    rest = [first]
    for t in range(4, 9):
        row, state = module.step(x[:, t], state)
        rest.append(row[:, None])
    torch.testing.assert_close(torch.cat(rest, 1), whole)


def test_tables_of_pairs_of_positions_stay_with_their_scores() -> None:
    text = """mixer m(x[t,d]) -> y[t,d]:
    index s over t
    y[t,d] = sum[s | s <= t] exp(-0.1 * (t - s)) * x[s]
"""
    assert "def tables" not in seqdsl.load(text).source("recurrent")
    assert "def tables" in seqdsl.load(SENSITIVE["angles"]).source("recurrent")
