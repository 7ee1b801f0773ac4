"""Taps of a time-invariant state, against the literal powers of its matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.matrix_rows import matrix_rows
from backends.torch_module.support.matrix_taps import matrix_taps
from backends.torch_module.support.repeated_product import repeated_product

from .loops import check_against, relative

F64 = torch.float64


def taps(c: Tensor, a: Tensor, b: Tensor, length: int) -> Tensor:
    dtype = torch.promote_types(torch.promote_types(c.dtype, a.dtype), b.dtype)
    return matrix_taps(*matrix_rows(c, length, a), b, length, dtype)


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


@pytest.mark.parametrize("width", [16, 64])
def test_float32_taps_are_nearer_to_the_truth_than_the_loop(width: int) -> None:
    """Squares in float64 and products in float32: these are rounded less often than steps are."""
    n = torch.arange(width, dtype=F64)
    sign = torch.where(n < n[:, None], (-1.0) ** (n[:, None] - n + 1), -1.0)
    a = torch.linalg.matrix_exp((2 * n[:, None] + 1) * sign / 1024).float()
    given = [(torch.randn(width), torch.randn(width)) for _ in range(5)]
    errors = [
        [relative(f(c, a, b, 2048), taps_loop(c.double(), a.double(), b.double(), 2048)) for c, b in given]
        for f in (taps, taps_loop)
    ]
    ours, loops = (sum(x) / len(given) for x in errors)
    assert ours < 0.7 * loops


def test_real_parts_of_complex_taps() -> None:
    c, a, b = drawn(5, torch.complex128)
    for length in (0, 1, 7, 40):
        found = matrix_taps(*matrix_rows(c, length, a), b, length, F64)
        assert found.dtype == F64 and relative(found, taps(c, a, b, length).real) < 1e-13


@pytest.mark.parametrize("rank", [0, 1])
def test_real_matrices_and_a_complex_column(rank: int) -> None:
    c, d, u, v, _ = low_rank(8, 1)
    b = torch.randn(2, 8, dtype=torch.complex128)
    a = torch.diag_embed(d) + u.mT @ v
    for length in (1, 7, 130):
        found = low_rank_taps(c, d, u, v, b, length) if rank else taps(c, a, b, length)
        assert relative(found, taps_loop(c.to(b.dtype), a.to(b.dtype), b, length)) < 1e-11


def test_a_state_without_components_has_taps_of_0() -> None:
    assert taps(torch.ones(2, 0), torch.ones(2, 0, 0), torch.ones(2, 0), 5).tolist() == [[0.0] * 5] * 2


def low_rank_taps(c: Tensor, d: Tensor, u: Tensor, v: Tensor, b: Tensor, length: int) -> Tensor:
    """The matrix is a diagonal d [.., N] and columns u times rows v [.., R, N]."""
    dtype = torch.promote_types(torch.promote_types(c.dtype, d.dtype), torch.promote_types(u.dtype, b.dtype))
    return matrix_taps(*matrix_rows(c, length, d, u.unbind(-2), v.unbind(-2)), b, length, dtype)


def low_rank_loop(c: Tensor, d: Tensor, u: Tensor, v: Tensor, b: Tensor, length: int) -> Tensor:
    return taps_loop(c, torch.diag_embed(d) + u.mT @ v, b, length)


def low_rank(size: int, rank: int, dtype: torch.dtype = F64) -> tuple[Tensor, ...]:
    c, _, b = drawn(size, dtype)
    d = torch.rand(2, size, dtype=F64).to(dtype) * (1j if dtype.is_complex else -1)
    u, v = (torch.randn(lanes, rank, size, dtype=dtype) / size for lanes in (2, 1))
    return c, d, u, v, b


@pytest.mark.parametrize(("size", "rank"), [(8, 1), (9, 2), (5, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_taps_of_a_diagonal_and_a_few_columns_times_rows(size: int, rank: int, dtype: torch.dtype) -> None:
    for length in (1, 2, 7, 64, 130):
        check_against(
            lambda *x, n=length: low_rank_taps(*x, n), lambda *x, n=length: low_rank_loop(*x, n), low_rank(size, rank, dtype)
        )


@pytest.mark.parametrize("own", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 2, 8, 17])
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_each_part_may_have_lanes_that_the_others_lack(own: int, size: int, scale: float) -> None:
    lanes = [(3, 1) if k == own else (1, 2) for k in range(3)]
    d, u, v = (scale * torch.randn(*one, size, dtype=F64) / size for one in lanes)
    c, b = torch.randn(size, dtype=F64), torch.randn(size, dtype=F64)
    for length in (1, 7, 130):
        found = matrix_taps(*matrix_rows(c, length, d, [u], [v]), b, length, F64)
        full = torch.diag_embed(d) + u.unsqueeze(-1) * v.unsqueeze(-2)
        assert relative(found, taps_loop(c, full, b, length)) < 1e-11


def test_powers_of_a_diagonal_and_columns_take_no_matrix_while_they_are_few() -> None:
    c, d, u, v, _ = low_rank(16, 1)
    rows, powers = matrix_rows(c, 1024, d, u.unbind(-2), v.unbind(-2))
    assert [p[1].shape[-1] if len(p) > 1 else None for p in powers] == [1, 2, 4, None, None]
    assert rows.shape[-2] * 2 ** len(powers) == 1024
    _, full = matrix_rows(c, 1024, torch.diag_embed(d) + u.mT @ v)
    assert relative(torch.diag_embed(powers[2][0]) + powers[2][1] @ powers[2][2], full[2][0]) < 1e-13


def test_a_diagonal_that_grows_and_is_cancelled_is_not_taken_apart() -> None:
    """A state of two that feedback holds: the diagonal's 64th power alone is 10^45, and nothing of it would be left."""
    d, u, v = torch.tensor([5.0, 0.2], dtype=F64), torch.tensor([[1.0, 1.0]], dtype=F64), torch.tensor([[-4.75, 0.05]], dtype=F64)
    wide = [torch.cat([x, torch.zeros(*x.shape[:-1], 14, dtype=F64)], -1) for x in (d, u, v)]
    c, b = torch.randn(16, dtype=F64), torch.randn(16, dtype=F64)
    assert relative(low_rank_taps(c, *wide, b, 4096), low_rank_loop(c, *wide, b, 4096)) < 1e-12


LANES = [((2, 3), (2, 3)), ((2, 3), (1, 1)), ((2, 3), ()), ((2, 3), (2, 1)), ((), (4,)), ((0,), ())]  # of the rows, the matrix


@pytest.mark.parametrize(("lanes", "own"), LANES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_products_one_after_another(lanes: tuple[int, ...], own: tuple[int, ...], count: int) -> None:
    for dtype in (F64, torch.complex128):
        x, a = torch.randn(*lanes, 2, 4, dtype=dtype), torch.randn(*own, 4, 4, dtype=dtype) / 3
        check_against(
            lambda x, a: repeated_product(x, a, count),
            lambda x, a: torch.cat([x @ torch.linalg.matrix_power(a, k) for k in range(count)], -2),
            (x, a),
        )


def test_products_one_after_another_have_second_derivatives_and_are_mapped() -> None:
    x, a = torch.randn(3, 2, 4, dtype=F64, requires_grad=True), (torch.randn(3, 4, 4, dtype=F64) / 3).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, a: repeated_product(x, a, 3), (x, a))
    found = torch.func.vmap(lambda x: repeated_product(x, a[0], 3))(x)
    assert relative(found, repeated_product(x, a[0], 3)) < 1e-15


def test_squares_of_wide_matrices_give_way_to_products() -> None:
    c, a, b = drawn(64, lanes=(8,))
    rows, powers = matrix_rows(c, 600, a)
    assert len(powers) == 4 and rows.shape[-2] == 40  # ten times four: two squares more, and not six
    assert relative(matrix_taps(rows, powers, b, 600, F64), taps_loop(c, a, b, 600)) < 1e-13


def test_taps_under_vmap() -> None:
    given = low_rank(8, 1)
    found = torch.func.vmap(lambda *x: low_rank_taps(*x, 40))(*(torch.stack([x, 0.5 * x]) for x in given))
    assert relative(found[1], low_rank_loop(*(0.5 * x for x in given), 40)) < 1e-13
