"""The convolution of recurrences that mix entries of their state: found from the update map, equal to the loop."""

from __future__ import annotations

import ast

import numpy as np
import pytest
import torch

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.node import walk
from seqdsl.ir.system import System
from seqdsl.plan import cost
from seqdsl.semantics import load_system

HEADER = "mixer m(x[t,c], A[n,m], K[c,n,m], b[n], w[c,n], g[t,c]) -> y[t,c]:\n    index m over n\n"
FOUND = {
    "one matrix": "S[t,c,n] = sum[m] A * S[t-1,c,m] + b * x; y[t,c] = sum[n] w * S",
    "a matrix for each channel": "S[t,c,n] = 0.3 * sum[m] K * S[t-1,c,m] + b * x; y[t,c] = 2 * sum[n] w * S - x",
    "a permutation": "S[t,c,n] = 0.9 * S[t-1,c,(n + 1) % |n|] + b * x; y[t,c] = sum[n] w * S",
    "a diagonal, a column times a row": (
        "S[t,c,n] = 0.4 * tanh(w) * S[t-1] - 0.3 * b / (1 + b^2) * (sum[m] b[m] * S[t-1,c,m]) + b * x; y[t,c] = sum[n] w * S"
    ),
    "two columns, of which one is the other's multiple": (
        "S[t,c,n] = 0.4 * S[t-1] + b * (sum[m] b[m] * S[t-1,c,m]) / 9 - b * (sum[n] w^2) * (sum[m] w[c,m] * S[t-1,c,m]) / 40 + x;"
        " y[t,c] = sum[n] w * S"
    ),
    "two states": "S[t,c] = 0.5 * S[t-1] + 0.2 * Z[t-1] + x; Z[t,c] = 0.3 * S[t-1] - 0.5 * Z[t-1]; y[t,c] = S - 2 * Z",
    "lags": "S[t,c] = 0.5 * S[t-1] - 0.3 * S[t-3] + x * g; y[t,c] = S",
    "lags that only a sum reads": "S[t,c,n] = 0.5 * S[t-1] + 0.3 * S[t-2] + b * x; y[t,c] = sum[n] w * S",
    "a start": "S[-1,c,n] = 1; S[t,c,n] = sum[m] A * S[t-1,c,m] + b * x; y[t,c] = sum[n] w * S",
    "a constant write": "S[t,c,n] = sum[m] A * S[t-1,c,m] + b + w * x; y[t,c] = sum[n] S",
    "a read after a nonlinearity": "S[t,c,n] = sum[m] A * S[t-1,c,m] + b * x; y[t,c] = silu(sum[n] w * S) * g",
    "the state squared": "S[t,c,n] = sum[m] A * S[t-1,c,m] + b * x; y[t,c] = sum[n] S * S",
    "the state before": "S[t,c,n] = sum[m] A * S[t-1,c,m] + b * x; y[t,c] = sum[n] w * S[t-1]",
    "a whole state whose write differs by entry": (
        "S[t,c,n] = sum[m] A * S[t-1,c,m] + x * (n + t); y[t,c] = S[t,c,0] * S[t,c,1]"
    ),
    "a write that differs by entry": "S[t,c,n] = sum[m] A * S[t-1,c,m] + x * (n + t); y[t,c] = sum[n] w * S",
}  # fmt: skip


def system_of(body: str) -> System:
    return load_system(HEADER + "\n".join("    " + line.strip() for line in body.split(";")) + "\n")


def drawn(time: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(time)
    shapes = {"x": (time, 2), "A": (3, 3), "K": (2, 3, 3), "b": (3,), "w": (2, 3), "g": (time, 2)}
    return {n: rng.standard_normal(s) * (0.4 if n in "AK" else 1) for n, s in shapes.items()}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("time", [0, 1, 2, 9])
def test_values_and_states_are_those_of_the_equations(name: str, time: int) -> None:
    system = system_of(FOUND[name])
    derived = derive(system, "convolution")
    assert any(n.op == "matrix_taps" for t in derived.system.derived() if t.rhs is not None for n in walk(t.rhs))
    given, more = drawn(time), drawn(time + 3)
    state = None
    for inputs in (given, {**given, "x": more["x"], "g": more["g"]}):  # from the start, then from the state it left
        expected = interpret(system, inputs=inputs, state=state)
        found = interpret(derived.system, inputs=inputs, state=state)
        assert np.allclose(found["outputs"]["y"], expected["outputs"]["y"], rtol=1e-11, atol=1e-11)
        for key, value in expected["state"].items():
            assert np.allclose(np.asarray(found["state"][key]), np.asarray(value), rtol=1e-11, atol=1e-11)
        state = expected["state"]


@pytest.mark.parametrize("name", ["one matrix", "a diagonal, a column times a row", "two states", "a start", "the state squared"])
def test_gradients_go_through_the_taps(name: str) -> None:
    mixer = seqdsl.load(HEADER + "\n".join("    " + line.strip() for line in FOUND[name].split(";")) + "\n")
    gradients = []
    for form in ("recurrent", "convolution"):
        inputs = [torch.tensor(v)[None].requires_grad_() for v in drawn(9).values()]
        y = mixer.module(form=form).double()(*inputs)
        gradients.append(torch.autograd.grad(y.square().sum(), inputs, allow_unused=True))
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "columns"),
    [("one matrix", 0), ("a diagonal, a column times a row", 1), ("two columns, of which one is the other's multiple", 1)],
)
def test_a_matrix_of_few_columns_is_written_as_those(name: str, columns: int) -> None:
    text = seqdsl.load(HEADER + "\n".join("    " + line.strip() for line in FOUND[name].split(";")) + "\n").source("convolution")
    calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "matrix_rows"]
    assert calls
    for call in calls:
        assert [len(side.elts) for side in call.args[3:] if isinstance(side, ast.List)] == [columns] * (2 if columns else 0)


@pytest.mark.parametrize(
    ("body", "reason"),
    [("S[t,c,n] = g * sum[m] A * S[t-1,c,m] + b * x; y[t,c] = sum[n] w * S", "depends on `t`"),
     ("S[t,c,n] = sum[m] A * S[t+1,c,m] + b * x; y[t,c] = sum[n] w * S", "runs backwards"),
     ("S[t,c] = 0.5 * S[t-1] + t * Z[t-1] + x; Z[t,c] = S[t-1]; y[t,c] = S", "depends on `t`")],
)  # fmt: skip
def test_what_changes_with_time_has_no_taps(body: str, reason: str) -> None:
    with pytest.raises(SeqError) as caught:
        derive(system_of(body), "convolution")
    assert any(reason in note for note in caught.value.diagnostics[0].notes)


STABLE = """
mixer m(x[t,c]; N = 8) -> y[t,c]:
    index m over n
    const A[n: N, m] = where(m == n, 0.75, where(m == n - 1, 0.25, 0))
    param w[c,n] = normal(0, 1)
    S[t,c,n] = sum[m] A * S[t-1,c,m] + x
    y[t,c]   = sum[n] w * S
"""


def test_auto_takes_the_taps_of_a_state_that_is_claimed_to_be_stable() -> None:
    assert seqdsl.load(STABLE + "    claim stable(S)\n").derived("auto").form == "convolution"
    assert seqdsl.load(STABLE).derived("auto").form != "convolution"


@pytest.mark.parametrize("form", ["recurrent", "scan", "convolution"])
def test_a_second_index_of_an_axis_of_fixed_length(form: str) -> None:
    mixer = seqdsl.load("mixer m(x[t,n: 8], A[n,m]) -> y[t,n]:\n    index m over n\n    y[t,n] = 0.2 * (sum[m] A * y[t-1,m]) + x\n")
    x, a = torch.randn(1, 5, 8, dtype=torch.float64), torch.randn(1, 8, 8, dtype=torch.float64)
    wanted = mixer.interpret({"x": x[0].numpy(), "A": a[0].numpy()})["outputs"]["y"]
    module = mixer.module(form).double()
    assert np.allclose(module(x, a)[0].numpy(), wanted, rtol=1e-12, atol=1e-12)
    state = module.init_state(1, dtype=torch.float64)
    assert np.allclose(module(x, a, state=state)[0].numpy(), wanted, rtol=1e-12, atol=1e-12)


def test_what_a_step_passes_on_by_a_micro_step_needs_no_claim_of_its_own() -> None:
    text = STABLE.replace("S[t,c,n] = sum", "Z[t,c,n] = sum")
    text = text.replace("    y[t,c] ", "    S[t,c,n] = Z + (sum[m] Z[t,c,m]) / 99\n    y[t,c] ")
    assert "Z[t,c,n] = sum[m] A * S[t-1,c,m] + x" in text
    assert seqdsl.load(text + "    claim stable(S)\n").derived("auto").form == "convolution"
    assert seqdsl.load(text).derived("auto").form != "convolution"


def test_a_convolution_costs_its_transforms_and_not_its_pairs() -> None:
    derived = derive(system_of(FOUND["a matrix for each channel"]), "convolution").system
    flops = cost(derived).flops
    assert not any(sum(axis in ("t", "S.l") for axis in names) > 1 for names in flops)
    assert flops["c", "t"] > 100 and flops["S.l", "c"] > 50
    windows = cost(load_system("mixer m(x[t,c], w[j,c]) -> y[t,c]:\n    y[t,c] = sum[j | j <= t and j < 3] w * x[t-j]\n")).flops
    assert any({"j", "t"} <= set(names) for names in windows)
    short = cost(load_system("mixer m(x[t,c], w[j,c]) -> y[t,c]:\n    y[t,c] = sum[j | j <= t] w * x[t-j]\n")).flops
    assert any({"j", "t"} <= set(names) for names in short)


@pytest.mark.parametrize("part", ["re", "im"])
def test_real_taps_are_real_parts(part: str) -> None:
    mixer = seqdsl.load(
        "mixer m(x[t,c], A[n,m]: complex, b[n]: complex, w[c,n]: complex) -> y[t,c]:\n    index m over n\n"
        f"    S[t,c,n] = sum[m] A * S[t-1,c,m] + b * x\n    y[t,c] = {part}(sum[n] w * S)\n"
    )
    kinds = {"x": torch.float64} | dict.fromkeys("Abw", torch.complex128)
    shapes = {"x": (1, 21, 2), "A": (1, 3, 3), "b": (1, 3), "w": (1, 2, 3)}
    given = [(torch.randn(shapes[n], dtype=k) * 0.5).requires_grad_() for n, k in kinds.items()]
    grads = []
    for form in ("recurrent", "convolution"):
        y = mixer.module(form).double()(*given)
        grads.append((y, *torch.autograd.grad(y.square().sum(), given)))
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-11)
    written = [line for line in mixer.source("convolution").splitlines() if "matrix_taps(" in line and " = " in line]
    assert [", dtype)" in line for line in written][:1] == [part == "re"]  # the kernel, before what a state adds


def test_a_long_memory_keeps_its_digits_in_float32() -> None:
    n = torch.arange(16, dtype=torch.float64)
    sign = torch.where(n < n[:, None], (-1.0) ** (n[:, None] - n + 1), -1.0)
    matrix = torch.linalg.matrix_exp((2 * n[:, None] + 1) * sign / 64).float()
    mixer = seqdsl.load(
        "mixer m(x[t], A[n,m], w[n]) -> y[t]:\n    index m over n\n"
        "    S[t,n] = sum[m] A * S[t-1,m] + x / 64\n    y[t] = sum[n] w * S\n"
    )
    x, w = torch.randn(1, 1000), torch.randn(1, 16)
    state, expected = torch.zeros(16, dtype=torch.float64), []
    for value in x[0].double():
        state = matrix.double() @ state + value / 64
        expected.append(w[0].double() @ state)
    y = mixer.module(form="convolution")(x, matrix[None], w)
    wanted = torch.stack(expected)
    assert (y[0] - wanted).square().mean().sqrt() < 2e-6 * wanted.square().mean().sqrt()
