"""The complex exponential against torch's own, where it is large, small and nothing."""

from __future__ import annotations

import math

import torch

from backends.torch_module.support.complex_exp import complex_exp


def test_values() -> None:
    z = torch.complex(torch.linspace(-30, 5, 400), 300 * torch.randn(400))
    exact = torch.exp(z.to(torch.complex128))
    assert ((complex_exp(z) - exact).abs() / exact.abs()).max() < 1e-6
    assert complex_exp(z[:0]).shape == (0,)


def test_nothing_is_nothing_in_any_direction() -> None:
    z = torch.tensor([complex(-math.inf, 1), complex(-math.inf, math.nan), complex(-math.inf, math.inf), complex(-200, 1e30)])
    assert complex_exp(z.to(torch.complex64)).abs().max() == 0


def test_gradients() -> None:
    z = torch.randn(7, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(complex_exp, z)
    assert torch.autograd.gradgradcheck(complex_exp, z)
    mapped = torch.func.vmap(complex_exp)(z.detach().reshape(7, 1))
    assert torch.equal(mapped[:, 0], complex_exp(z.detach()))
