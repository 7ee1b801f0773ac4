"""Sums over earlier positions whose weights depend on the lag: convolutions, in pieces, packed, and with gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqdsl
from seqdsl.api import Program
from seqdsl.ir.interpreter import interpret

HEADER = "    index s over t\n"
FOUND = {
    "a kernel with an axis of its own": (
        "m(x[t,c], K[l,c]) -> y[t,c]", "y[t,c] = sum[s | s <= t and t - s < |l|] K[t-s,c] * x[s]"),
    "a kernel with an axis of its own, spelt with lags": (
        "m(x[t,c], K[l,c]) -> y[t,c]", "y[t,c] = sum[l | l <= t] K * x[t-l]"),
    "one kernel for all channels": ("m(x[t,c], K[l]) -> y[t,c]", "y[t,c] = sum[l | l <= t] K * x[t-l]"),
    "a window": ("m(x[t,c], w[c]) -> y[t,c]", "y[t,c] = 2 + 3 * sum[s | s > t - 4 and t >= s] x[s] * w / (t + 1 - s)"),
    "a decay, and positions before": (
        "m(x[t,c], a[c], b[t,c]) -> y[t,c]", "y[t,c] = b * sum[s | s < t] exp(-softplus(a) * (t - s)) * x[s] * exp(b[s])"),
    "a sum of modes": (
        "m(x[t,c], w[l,c], f[l]) -> y[t,c]", "y[t,c] = sum[s | s <= t] (sum[l] w * cos(f * (t - s))) * x[s] / |l|"),
    "a sum of sums": (
        "m(x[t,c], a[c]) -> y[t,c]",
        "index u over t; y[t,c] = sum[u | u <= t] x[u] * (sum[s | s <= u] exp(-abs(a) * (u - s)) * x[s])"),
    "steps of two": (
        "m(x[t,c], w[c]) -> y[t,c]", "y[t,c] = sum[s | s <= t] where((t - s) % 2 == 0, sigmoid(w)^(t - s), 0) * x[s] * w"),
}  # fmt: skip
NO_STATE = "a sum of sums"
OTHERS = {
    "the parity of each": ("m(x[t,c]) -> y[t,c]", "y[t,c] = sum[s | s <= t and s % 2 == t % 2] x[s] / (1 + t - s)"),
    "earlier and later": ("m(x[t,c]) -> y[t,c]", "y[t,c] = sum[s] x[s] / (1 + abs(t - s))"),
    "whole numbers": ("m(n[t,c]: int) -> y[t,c]", "y[t,c] = sum[s | s <= t] (t - s) * n[s]"),
    "two positions": ("m(x[t,c]) -> y[t,c]", "y[t,c] = sum[s | s <= t] x[t] * exp(x[s]) / (1 + t - s + s * t)"),
}
LENGTHS = {"c": 2, "l": 5}


def loaded(head: str, equation: str) -> Program:
    lines = equation.replace("; ", "\n    ")
    return seqdsl.load(f"mixer {head}:\n{HEADER}    {lines}\n")


def drawn(program: Program, time: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(time)
    lengths = {**LENGTHS, "t": time}
    return {x.name: rng.standard_normal([lengths[i] for i in x.indices]) for x in program.system().inputs()}


def convolves(program: Program) -> bool:
    return any(program.source().count(f"{name}(") > 1 for name in ("_long_conv", "causal_conv"))  # it is defined, and called


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("time", [0, 1, 7, 40])
def test_values_in_one_piece_in_two_and_packed(name: str, time: int) -> None:
    program = loaded(*FOUND[name])
    assert convolves(program)
    inputs, module = drawn(program, time), program.module().double()
    expected = interpret(program.system(), inputs=inputs)["outputs"]["y"]

    def between(a: int, b: int, **more: object) -> object:
        along = {x.name for x in program.system().inputs() if "t" in x.indices}
        return module(*(torch.from_numpy(v[a:b] if n in along else v)[None] for n, v in inputs.items()), **more)

    whole = between(0, time)
    assert isinstance(whole, torch.Tensor)
    assert np.allclose(whole[0].numpy(), expected, rtol=1e-10, atol=1e-10)
    if name == NO_STATE:
        return
    cut = time // 3
    first, state = between(0, cut, return_state=True)  # type: ignore[misc]
    rest, _ = between(cut, time, state=state, return_state=True)  # type: ignore[misc]
    assert torch.allclose(torch.cat([first, rest], 1), whole, rtol=1e-10, atol=1e-10)
    packed = between(0, time, cu_seqlens=torch.tensor([0, cut, time]))
    assert torch.allclose(packed, torch.cat([first, between(cut, time)], 1), rtol=1e-10, atol=1e-10)  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize("name", FOUND)
def test_gradients(name: str) -> None:
    program = loaded(*FOUND[name])
    module = program.module().double()
    given = tuple(torch.from_numpy(v)[None].requires_grad_() for v in drawn(program, 6).values())
    assert torch.autograd.gradcheck(module, given)


@pytest.mark.parametrize("name", OTHERS)
def test_what_depends_on_more_than_the_lag_is_no_convolution(name: str) -> None:
    assert not convolves(loaded(*OTHERS[name]))


STACK = """
mixer layer(x[t,h,d], a[d], u[t,n], W[n,m], v[t,n]) -> o[t,h,d], r[t,n]:
    index s over t
    index m over n
    o[t,h,d] = sum[s | s <= t] exp(-abs(a) * (t - s)) * x[s]
    H[t,n]   = tanh((sum[m] W * H[t-1,m]) + u)
    r[t,n]   = H[t-1] + v
mixer deep(a[d], u[t,n], W[n,m], v[l,t,n], z0[t,h,d]) -> y[t,h,d]:
    index m over n
    z[-1,t,h,d] = z0
    f[l,t,h,d]  = tanh(z[l-1])
    p, r = layer(f, a, u, W, v)
    z[l: 2,t,h,d] = z[l-1] / 2 + p / 4
    y[t,h,d] = z[1]
"""


@pytest.mark.parametrize("form", ["recurrent", "newton"])
def test_inside_a_loop_over_depth_and_where_that_is_cut_into_pieces(form: str) -> None:
    """In a step that Newton's method takes, the layers are an axis, of as many as a piece has: no convolution there."""
    program = seqdsl.load(STACK, "deep")
    rng = np.random.default_rng(0)
    shapes = {"a": (3,), "u": (40, 2), "W": (2, 2), "v": (2, 40, 2), "z0": (40, 2, 3)}
    inputs = {n: rng.standard_normal(shape) for n, shape in shapes.items()}
    expected = interpret(program.system(), inputs=inputs)["outputs"]["y"]
    found = program.module(form).double()(*(torch.from_numpy(v)[None] for v in inputs.values()))
    assert np.allclose(found[0].numpy(), expected, rtol=1e-10, atol=1e-10)
    assert (program.source(form).count("_long_conv(") > 1) == (form == "recurrent")


def test_small_sums_before_large_numbers_keep_their_digits() -> None:
    program = loaded("m(k[t,c], a[c]) -> y[t,c]", "y[t,c] = sum[s | s <= t] exp(-abs(a) * (t - s)) * exp(k[s])")
    k = torch.linspace(-8, 8, 1000).view(1, 1000, 1)
    y = program.module()(k, torch.ones(1, 1))
    expected = interpret(program.system(), inputs={"k": k[0].double().numpy(), "a": np.ones(1)})["outputs"]["y"]
    assert np.abs(y[0].numpy() / expected - 1).max() < 1e-6


def test_a_long_sum_takes_no_memory_for_pairs() -> None:
    """65 536 positions of 8 channels: pairs of them would be 128 GiB."""
    program = loaded(*FOUND["a decay, and positions before"])
    x, b = (torch.rand(1, 65_536, 8) for _ in "xb")
    y = program.module()(x, torch.full((1, 8), 8.0), b)
    last = (torch.exp(-8.0 * torch.arange(1, 20)) * (x[0, -20:-1, 0] * b[0, -20:-1, 0].exp()).flip(0)).sum() * b[0, -1, 0]
    assert torch.allclose(y[0, -1, 0], last, rtol=1e-4)
