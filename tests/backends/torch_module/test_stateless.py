"""What a state adds to a convolution is computed where there is a state, and then it is right."""

from __future__ import annotations

import pytest
import torch

import seqdsl

MIXERS = {
    "diagonal": """mixer m(x[t,c], a[c,n], b[c,n]) -> y[t,c]:
    h[t,c,n] = sigmoid(a) * h[t-1] + b * x
    y[t,c]   = 2 * (sum[n] b * h) + x
""",
    "complex": """mixer m(x[t,c], a[c,n], b[c,n]) -> y[t,c]:
    h[t,c,n] = exp(1i * a - 0.3) * h[t-1] + b * x
    y[t,c]   = 0.5 * re(sum[n] b * h) - x
""",
    "matrix": """mixer m(x[t,c], a[n,m], b[n]) -> y[t,c]:
    index m over n
    h[t,c,n] = 0.4 * (sum[m] tanh(a) * h[t-1,c,m]) + b * x
    y[t,c]   = sum[n] b * h
""",
    "whole": """mixer m(x[t,c], a[c,n], b[c,n]) -> h[t,c,n]:
    h[t,c,n] = sigmoid(a) * h[t-1] + b * x
""",
    "read twice": """mixer m(x[t,c], a[c,n], b[c,n]) -> y[t,c]:
    h[t,c,n] = sigmoid(a) * h[t-1] + b * x
    u[t,c]   = sum[n] h
    y[t,c]   = u * tanh(u) + sum[n] b * h
""",
}
SIZES = {"c": 2, "n": 3, "m": 3}


def drawn(text: str, time: int) -> dict[str, torch.Tensor]:
    """Inputs in float64 with two sequences, which share what does not vary along t."""
    draw = torch.Generator().manual_seed(1)
    header = text.split("(", 1)[1].split(")")[0]
    found = {}
    for item in header.split("], "):
        name, axes = item.rstrip("]").split("[")
        shape = [time if a == "t" else SIZES[a] for a in axes.split(",")]
        found[name] = torch.randn(2 if "t" in axes.split(",") else 1, *shape, generator=draw, dtype=torch.float64)
    return found


@pytest.mark.parametrize("cut", [0, 1, 5, 13])
@pytest.mark.parametrize("name", MIXERS)
def test_a_cut_sequence_is_the_whole_one(name: str, cut: int) -> None:
    module, given = seqdsl.load(MIXERS[name]).module("convolution"), drawn(MIXERS[name], 13)
    x, others = given.pop("x").requires_grad_(), given
    whole, end = module(x, *others.values(), return_state=True)
    first, state = module(x[:, :cut], *others.values(), return_state=True)
    second, last = module(x[:, cut:], *others.values(), state=state, return_state=True)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(last, end, rtol=1e-11, atol=1e-11)
    slopes = [torch.autograd.grad(y.square().sum(), x)[0] for y in (whole, torch.cat([first, second], 1))]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MIXERS)
def test_without_a_state_it_is_not_computed(name: str) -> None:
    lines = seqdsl.load(MIXERS[name]).source("convolution").splitlines()
    place = lines.index(next(line for line in lines if line.strip() == "if state is not None:"))
    depth = len(lines[place]) - len(lines[place].lstrip())
    inside = [line for line in lines[place + 1 : place + 40] if len(line) - len(line.lstrip()) > depth]
    assert any("h_start" in line for line in inside)
    module, given = seqdsl.load(MIXERS[name]).module("convolution"), drawn(MIXERS[name], 7)
    empty = {k: v[:, :0] if k == "x" else v for k, v in given.items()}
    zero = module(*empty.values(), return_state=True)[1]
    torch.testing.assert_close(module(*given.values(), state=zero), module(*given.values()))
