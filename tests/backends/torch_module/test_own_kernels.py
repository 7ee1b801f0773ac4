"""Convolutions with a kernel of an axis of its own, one for each sequence: in pieces, packed, and with gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqdsl
from seqdsl.ir.interpreter import interpret

TEXTS = {
    "a kernel for each channel": "mixer m(x[t,c], K[l,c]) -> y[t,c]:\n    y[t,c] = sum[l | l <= t] K * x[t-l]\n",
    "one kernel for all channels": "mixer m(x[t,c], K[l]) -> y[t,c]:\n    y[t,c] = 2 - sum[l] K * x[t-l]\n",
    "several kernels": "mixer m(x[t], K[l,c], b[t,c]) -> y[t,c]:\n    y[t,c] = b * sum[l | l <= t] sigmoid(K) * x[t-l]\n",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(("time", "taps"), [(0, 5), (1, 5), (7, 5), (40, 5), (3, 9), (90, 80)])
def test_values_in_one_piece_in_two_and_packed(name: str, time: int, taps: int) -> None:
    program = seqdsl.load(TEXTS[name])
    assert program.source().count("causal_conv(") > 1  # it is defined, and called
    rng, lengths = np.random.default_rng(time), {"t": time, "l": taps, "c": 2}
    given = {x.name: rng.standard_normal((2, *(lengths[i] for i in x.indices))) for x in program.system().inputs()}
    module = program.module().double()

    def between(a: int, b: int, **more: object) -> object:
        return module(*(torch.from_numpy(v if n == "K" else v[:, a:b]) for n, v in given.items()), **more)

    whole = between(0, time)
    assert isinstance(whole, torch.Tensor)
    for one in range(2):
        expected = interpret(program.system(), inputs={n: v[one] for n, v in given.items()})["outputs"]["y"]
        assert np.allclose(whole[one].numpy(), expected, rtol=1e-10, atol=1e-10)
    cut = time // 3
    first, state = between(0, cut, return_state=True)  # type: ignore[misc]
    rest, _ = between(cut, time, state=state, return_state=True)  # type: ignore[misc]
    assert torch.allclose(torch.cat([first, rest], 1), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TEXTS)
def test_gradients(name: str) -> None:
    program = seqdsl.load(TEXTS[name])
    lengths = {"t": 6, "l": 3, "c": 2}
    given = [torch.randn(2, *(lengths[i] for i in x.indices), dtype=torch.float64) for x in program.system().inputs()]
    assert torch.autograd.gradcheck(program.module().double(), tuple(x.requires_grad_() for x in given))
