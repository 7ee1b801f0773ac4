"""`auto` never takes a form that loses accuracy: no FFT where the states are wanted, or where a kernel may grow."""

from __future__ import annotations

import pytest
import torch

import seqdsl

FILTER = "mixer m(x[t,c]; N = 4) -> y[t,c]:\n    {}\n    S[t, c, n: N] = {} * S[t-1] + x\n    y[t,c] = sum[n] w * S\n"
WEIGHT = "param w[c,n] = normal(0, 1)"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = y[t-1] + x\n", "scan"),
        ("mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = 0.9 * y[t-1] + x\n", "scan"),
        (FILTER.format(WEIGHT, "exp(-exp(w))"), "convolution"),
        (FILTER.format(WEIGHT, "exp(-exp(w) + 2i * n)").replace("w * S", "re(w * S)"), "convolution"),
        (FILTER.format(WEIGHT, "tanh(w)"), "convolution"),
        (FILTER.format(WEIGHT, "1.01"), "scan"),
        (FILTER.format(WEIGHT, "w"), "scan"),
        (FILTER.format(WEIGHT, "w") + "    claim stable(S) when -1 <= w <= 1\n", "convolution"),
    ],
)
def test_a_convolution_only_where_it_pays_and_the_kernel_decays(text: str, form: str) -> None:
    chosen = seqdsl.load(text).derived("auto").form
    assert chosen == form or (form == "scan" and chosen == "chunkwise")


def test_a_running_sum_keeps_small_values_that_stand_before_large_ones() -> None:
    x = torch.full((1, 2048, 1), 1e-4)
    x[:, 1500:] = 1e6
    y = seqdsl.load("mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = y[t-1] + x\n").module()(x)
    before = x[:, :1500].double().cumsum(1)
    assert ((y[:, :1500] - before) / before).abs().max() < 1e-5


def test_growth_that_overflows_at_the_end_is_right_before_it() -> None:
    x = torch.randn(1, 600, 1, generator=torch.Generator().manual_seed(0))
    y = seqdsl.load("mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = 1.3 * y[t-1] + x\n").module()(x)
    wanted = [x[:, 0].double()]
    for t in range(1, 200):
        wanted.append(1.3 * wanted[-1] + x[:, t])
    assert ((y[:, :200] - torch.stack(wanted, 1)) / torch.stack(wanted, 1)).abs().max() < 1e-3


@pytest.mark.parametrize("gate", ["", " * silu(r)", " / (t + 1)", " * sigmoid(g)"])
def test_a_gate_inside_the_sum_does_not_cost_the_matrix_form(gate: str) -> None:
    text = f"""
mixer m(q[t,h,d], k[t,h,d], v[t,h,e], g[t,h], r[t,h,e]) -> o[t,h,e]:
    S[t,h,d,e] = exp(g) * S[t-1] + k * v
    o[t,h,e]   = sum[d] q * S{gate}
"""
    assert seqdsl.load(text).derived("auto").form == "chunkwise"
