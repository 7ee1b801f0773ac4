"""Exact evaluation against the float64 interpreter, on the numbers that it draws."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from seqdsl.algebra.exact import World, evaluate
from seqdsl.algebra.numbers import FUNCTIONS, Complex, decimal, digits
from seqdsl.ir.interpreter import interpret
from seqdsl.semantics import load_system

BODIES = [
    "sum[s] x[s] * y[s]", "mean[s](x[s])", "prod[s](x[s])", "max[s](x[s] - t)", "min[s](x[s])", "argmax[s](x[s])",
    "logsumexp[s | s <= t](x[s])", "sum[s | s < t] x[s]", "any[s](x[s] > y)", "all[s](x[s] > y - 20)",
    "sum[s] softmax[s | s <= t](x[s]) * y[s]", "exp(x / 4)", "sigmoid(x)", "softplus(x)", "tanh(x)", "gelu(x)", "silu(x)",
    "erf(x)", "log(x^2)", "sqrt(x^2 + 1)", "sin(x) * cos(y)", "x // y", "x % y", "round(x)", "floor(x) + ceil(y)",
    "sign(x)", "step(x) + step(0 * x)", "clamp(x, -1, 1)", "relu(x)", "elu(x)", "log_sigmoid(x)", "expm1(x)", "abs(x) ^ 0.5",
    "logaddexp(x, y)", "where(x > y, x / y, y)", "re((x + 1i * y)^2)", "abs(x + 1i * y)", "xor(t, 5) + bit_length(t)",
]


@pytest.mark.parametrize("body", BODIES)
def test_exact_evaluation_is_the_interpreter_s(body: str) -> None:
    system = load_system(f"mixer m(x[t], y[t]) -> z[t]:\n    index s over t\n    z[t] = 1.0 * ({body})\n")
    world = World(system, seed=3, length=3)
    length = world.size("t")
    inputs = {n: np.array([float(world.value(n, (t,), "real")) for t in range(length)]) for n in ("x", "y")}
    expected = interpret(system, inputs=inputs)["outputs"]["z"]
    node = system.tensors["z"].rhs
    assert node is not None
    for t in range(length):
        found = evaluate(node, {"t": t}, world)
        assert not isinstance(found, Complex)
        assert float(decimal(found)) == pytest.approx(float(expected[t]), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("x", "tail"), [(5, "1.5374597944280348501883434853833788901e-12"), (13, "0")])
def test_erf_keeps_its_digits_where_its_power_series_would_cancel(x: int, tail: str) -> None:
    with digits():
        for sign in (1, -1):
            found = FUNCTIONS["erf"](Decimal(sign * x))
            assert abs(found - sign * (1 - Decimal(tail))) < Decimal("1e-47")


@pytest.mark.parametrize(("t", "nodes"), [(0, 1 + 3 + 4), (1, 1 + 3 + 6)])
def test_what_is_evaluated_is_counted_and_a_branch_only_where_it_is_taken(t: int, nodes: int) -> None:
    system = load_system("mixer m(x[t]) -> z[t]:\n    z[t] = where(t < 1, x + 1, exp(x * x))\n")
    node = system.tensors["z"].rhs
    assert node is not None
    world = World(system)
    evaluate(node, {"t": t}, world)
    assert world.spent == nodes
