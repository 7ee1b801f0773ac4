"""Taps of a time-invariant state, against the literal powers of its matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.matrix_rows import matrix_rows
from backends.torch_module.support.matrix_taps import matrix_taps

from .loops import check_against, relative

F64 = torch.float64


def taps(c: Tensor, a: Tensor, b: Tensor, length: int) -> Tensor:
    dtype = torch.promote_types(torch.promote_types(c.dtype, a.dtype), b.dtype)
    return matrix_taps(*matrix_rows(c, a, length), b, length, dtype)


def taps_loop(c: Tensor, a: Tensor, b: Tensor, length: int) -> Tensor:
    found, state = [], b
    for _ in range(length):
        found.append((c * state).sum(-1) + 0 * a.sum((-2, -1)))
        state = (a @ state.unsqueeze(-1)).squeeze(-1)
    return torch.stack(found, -1)


def drawn(size: int = 3, dtype: torch.dtype = F64, lanes: tuple[int, ...] = (2,)) -> tuple[Tensor, ...]:
    a = torch.randn(*lanes, size, size, dtype=dtype) / (1.5 * size**0.5)
    return torch.randn(*lanes, size, dtype=dtype), a, torch.randn(*lanes, size, dtype=dtype)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 15, 16, 17, 64, 65])
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_taps_and_their_gradients(length: int, dtype: torch.dtype) -> None:
    check_against(lambda *x: taps(*x, length), lambda *x: taps_loop(*x, length), drawn(3, dtype))


def test_lanes_broadcast_at_every_length() -> None:
    c, a, b = torch.randn(2, 1, 3, dtype=F64), torch.randn(1, 4, 3, 3, dtype=F64) / 3, torch.randn(3, dtype=F64)
    for length in (0, 1, 2, 9):
        found = taps(c, a, b, length)
        assert found.shape == (2, 4, length)
        for k in range(length):
            assert relative(found[..., k], (c * (torch.linalg.matrix_power(a, k) @ b)).sum(-1)) < 1e-13


def test_float32_taps_of_a_rotation_and_of_an_ill_conditioned_matrix_keep_their_digits() -> None:
    angle = torch.tensor(0.1, dtype=F64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]).float()
    n = torch.arange(16, dtype=F64)
    sign = torch.where(n < n[:, None], (-1.0) ** (n[:, None] - n + 1), -1.0)
    legendre = torch.linalg.matrix_exp((2 * n[:, None] + 1) * sign / 256).float()  # eigenvectors conditioned as 1e8
    for a in (turn, legendre):
        c, b = torch.randn(a.shape[-1]), torch.randn(a.shape[-1])
        expected = taps_loop(c.double(), a.double(), b.double(), 4096)
        found = taps(c, a, b, 4096)
        assert found.dtype == torch.float32 and relative(found, expected) < 1e-6


def test_a_state_without_components_has_taps_of_0() -> None:
    assert taps(torch.ones(2, 0), torch.ones(2, 0, 0), torch.ones(2, 0), 5).tolist() == [[0.0] * 5] * 2
