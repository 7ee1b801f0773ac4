"""What a step of a loop leaves to do: terms that the loop does not change are added up before it, products added at once."""

from __future__ import annotations

import re

import pytest
import torch

import seqdsl

CELLS = {
    "biases": """mixer m(x[t,c], w[c,n], a[n], b[n]) -> h[t,n]:
    index k over n
    param R[n,k] = normal(0, 0.4)
    h[t,n] = tanh(sum[c] x * w + (a + (sum[k] h[t-1,k] * R) + b))
""",
    "two matrices": """mixer m(x[t,n], a[n]) -> h[t,n]:
    index k over n
    param R[n,k] = normal(0, 0.4)
    param P[k,n] = normal(0, 0.4)
    h[t,n] = tanh((sum[k] h[t-1,k] * R) + a * h[t-1] + (sum[k] P * x[t-1,k] * 2) + (sum[k] tanh(h[t-1,k]) * P[k,n]) + x)
""",
    "matrix states": """mixer m(x[t,d], v[t,e], a[d]) -> y[t,e]:
    S[t,d,e] = 0.5 * S[t-1] + x * v + (x * tanh(S[t-1])) + a * v
    y[t,e]   = sum[d] S * x
""",
    "a stack": """mixer m(x[t,n]; L = 2) -> y[t,n]:
    index k over n
    param R[l: L, n, k] = normal(0, 0.4)
    param b[l,n] = normal(0, 1)
    y{0} = x
    for i in 0..2:
        y{i+1}[t,n] = tanh(y{i} + b[i] + (sum[k] y{i+1}[t-1,k] * R[i]))
    y = y{2}
""",
}


def steps_of(name: str) -> str:
    """The text of the loop over time."""
    text = seqdsl.load(CELLS[name]).source("recurrent")
    return "\n".join(line for line in text.splitlines() if re.match(r"\s+(h\[t\]|h = |h_part)", line))


def test_a_step_of_a_cell_is_one_product_and_its_slope() -> None:
    assert re.search(r"h\[t\] = torch\.tanh\(torch\.addmm\(\w+\[t\], h\[t - 1\], \S+\)\)", steps_of("biases"))


def test_several_products_are_added_one_to_another() -> None:
    text = seqdsl.load(CELLS["two matrices"]).source("recurrent")
    steps = text.split("for t in range(T):", 1)[1].split("return", 1)[0]
    assert steps.count("torch.addmm(") == 2 and "@" not in steps and steps.count("torch.addcmul(") == 1


def test_an_outer_product_is_not_written_out_over_the_whole_axis() -> None:
    text = seqdsl.load(CELLS["matrix states"]).source("recurrent")
    before = text.split("def S_steps", 1)[0]
    assert "# [B, T, D, E]" not in before


@pytest.mark.parametrize("time", [0, 1, 6])
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients(name: str, time: int) -> None:
    program = seqdsl.load(CELLS[name])
    torch.manual_seed(0)
    system = program.system()
    module = program.module("recurrent", **({"n": 4} if system.params() else {})).double()
    sizes = {"t": time, "c": 3, "n": 4, "k": 4, "d": 3, "e": 2, "l": 2}
    given = [torch.randn(1 if t.indices[0] != "t" else 2, *(sizes[i] for i in t.indices)).double() for t in system.inputs()]
    found = module(*given)
    named = {p.name: next(v for n, v in module.state_dict().items() if n == p.name) for p in system.params()}
    for b in range(2):
        inputs = {t.name: x[min(b, len(x) - 1)].numpy() for t, x in zip(system.inputs(), given, strict=True)}
        truth = program.interpret(inputs=inputs, params={n: v.numpy() for n, v in named.items()})["outputs"]
        torch.testing.assert_close(found[b], torch.from_numpy(next(iter(truth.values()))))
    if time:
        assert torch.autograd.gradcheck(module, [x.requires_grad_() for x in given])
