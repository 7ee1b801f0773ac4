"""affine_scan and the products of decays against literal loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.affine_scan import affine_scan
from backends.torch_module.support.prefix_products import prefix_products
from backends.torch_module.support.segment_products import segment_products
from backends.torch_module.support.suffix_products import suffix_products

from .loops import between, check_against, mixed_log_decays, relative, scan_loop

F64 = torch.float64


def decays_with_zeros(*shape: int, dtype: torch.dtype = F64) -> Tensor:
    a = torch.randn(*shape, dtype=dtype)
    return torch.where(torch.rand(*shape) < 0.15, 0, a)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", [1, 31, 63, 64, 65, 257, 600])  # of the last, the pieces have pieces
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_any_decay(time: int, reverse: bool, dtype: torch.dtype) -> None:
    a, b = decays_with_zeros(2, time, 3, dtype=dtype), torch.randn(2, time, 3, dtype=dtype)
    for start in (None, torch.randn(2, 3, dtype=dtype)):
        check_against(
            lambda *x: affine_scan(*x, reverse=reverse), lambda *x: scan_loop(*x, reverse=reverse), (a, b, start)
        )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", [1, 65, 257, 600])
def test_log_decays_of_every_size(time: int, reverse: bool) -> None:
    g, b = mixed_log_decays(2, time, 3, reset=True), torch.randn(2, time, 3, dtype=F64)
    start = torch.randn(2, 3, dtype=F64)
    check_against(
        lambda *x: affine_scan(*x, log=True, reverse=reverse),
        lambda g, b, s: scan_loop(g.exp(), b, s, reverse=reverse),
        (g, b, start),
    )


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (2, 1, 1, 1), (1, 70, 1, 4), (2, 70, 3, 1)])
def test_broadcast_decay(shape: tuple[int, ...]) -> None:
    a, b = decays_with_zeros(*shape), torch.randn(2, 70, 3, 4, dtype=F64)
    check_against(affine_scan, scan_loop, (a, b, torch.randn(2, 3, 4, dtype=F64)))


def test_a_decay_without_batch_and_a_wider_decay() -> None:
    a, b = torch.rand(4, dtype=F64), torch.randn(2, 70, 4, dtype=F64)
    assert relative(affine_scan(a, b), scan_loop(a.reshape(1, 1, 4), b, None)) < 1e-12
    wide = torch.rand(2, 70, 3, dtype=F64)
    narrow = torch.randn(1, 70, 1, dtype=F64)
    assert relative(affine_scan(wide, narrow), scan_loop(wide, narrow.expand(2, 70, 3), None)) < 1e-12


def test_no_time_steps() -> None:
    h = affine_scan(torch.rand(2, 0, 3), torch.rand(2, 0, 3), torch.rand(2, 3))
    assert h.shape == (2, 0, 3)


@pytest.mark.parametrize("decay", [0.0, -3e-8, -5e-7, -1e-6, -1e-3, -0.1])
@pytest.mark.parametrize("reverse", [False, True])
def test_slow_decays_do_not_drift_in_float32(decay: float, reverse: bool) -> None:
    g, b = torch.full((1, 4096, 4), decay), torch.randn(1, 4096, 4) + 1
    h = affine_scan(g, b, log=True, reverse=reverse)
    exact = scan_loop(g.double().exp(), b.double(), None, reverse=reverse)
    assert relative(h, exact) < 2e-6
    if decay == -1e-6:  # the rounded decay alone does drift: this test can fail
        assert relative(scan_loop(g.exp(), b, None, reverse=reverse), exact) > 5e-6


def test_a_reset_is_exact_in_float32() -> None:
    g, b = torch.full((1, 128, 1), -1e-6), torch.zeros(1, 128, 1)
    g[:, 64], b[:, :32], b[:, 70:] = float("-inf"), 1e6, 1e-6
    h = affine_scan(g, b, log=True)
    assert h[0, 64:70].abs().max() == 0
    assert relative(h[:, 70:], scan_loop(g[:, 70:].double().exp(), b[:, 70:].double(), None)) < 2e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_run_in_float32(dtype: torch.dtype) -> None:
    a, b = torch.rand(2, 70, 3).to(dtype).requires_grad_(), torch.randn(2, 70, 3).to(dtype)
    h = affine_scan(a, b)
    assert h.dtype == torch.float32
    assert relative(h, scan_loop(a.double(), b.double(), None)) < 2e-6
    h.sum().backward()
    assert a.grad is not None and a.grad.dtype == dtype


@pytest.mark.parametrize("reverse", [False, True])
def test_second_derivatives(reverse: bool) -> None:
    a, b, s = decays_with_zeros(2, 34, 1), torch.randn(2, 34, 1, dtype=F64), torch.randn(2, 1, dtype=F64)
    given = [x.requires_grad_() for x in (a, b, s)]
    assert torch.autograd.gradcheck(lambda *x: affine_scan(*x, reverse=reverse), given, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *x: affine_scan(*x, reverse=reverse), given, fast_mode=True)
    g = mixed_log_decays(2, 34, 1).clamp(min=-3).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda *x: affine_scan(*x, log=True, reverse=reverse), (g, b, s), fast_mode=True
    )


def test_mapped() -> None:
    a, b, s = torch.rand(5, 2, 40, 3), torch.randn(5, 2, 40, 3), torch.randn(2, 3)
    each = torch.stack([affine_scan(a[i], b[i], s) for i in range(5)])
    assert torch.equal(torch.func.vmap(affine_scan, (0, 0, None))(a, b, s), each)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return affine_scan(a, b, s).square().sum()

    mapped = torch.func.vmap(torch.func.grad(loss))(a, b)
    assert relative(mapped, torch.stack([torch.func.grad(loss)(a[i], b[i]) for i in range(5)])) < 1e-6


def test_compiled_whole() -> None:
    compiled = torch.compile(lambda g, b, s: affine_scan(g, b, s, log=True), fullgraph=True, backend="eager")
    g, b, s = mixed_log_decays(2, 70, 3), torch.randn(2, 70, 3, dtype=F64), torch.randn(2, 3, dtype=F64)
    check_against(compiled, lambda *x: affine_scan(*x, log=True), (g, b, s))


class _Scan(torch.nn.Module):
    def forward(self, a: Tensor, b: Tensor, start: Tensor) -> Tensor:
        return affine_scan(a, b, start, reverse=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_exported_for_any_length() -> None:
    time = torch.export.Dim("time", min=2, max=100_000)
    example = torch.rand(2, 130, 3), torch.randn(2, 130, 3), torch.randn(2, 3)
    exported = torch.export.export(_Scan(), example, dynamic_shapes=({1: time}, {1: time}, None)).module()
    for length in (2, 64, 257):
        given = torch.rand(2, length, 3), torch.randn(2, length, 3), torch.randn(2, 3)
        assert relative(exported(*given), affine_scan(*given, reverse=True)) < 1e-6


@pytest.mark.parametrize("size", [1, 2, 5, 16])
@pytest.mark.parametrize("log", [False, True])
def test_products(size: int, log: bool) -> None:
    decay = mixed_log_decays(2, size, 3, reset=True) if log else decays_with_zeros(2, size, 3)

    def linear(x: Tensor) -> Tensor:
        return x.exp() if log else x

    def prefix(x: Tensor) -> Tensor:
        return torch.stack([between(linear(x), -1, i) for i in range(size)], -2)

    def exclusive(x: Tensor) -> Tensor:
        return torch.stack([between(linear(x), -1, i - 1) for i in range(size)], -2)

    def suffix(x: Tensor) -> Tensor:
        return torch.stack([between(linear(x), j, size - 1) for j in range(size)], -2)

    def segments(x: Tensor) -> Tensor:
        a = linear(x).unsqueeze(-1)
        zero = torch.zeros_like(x[..., 0])
        rows = [[between(a, j, i)[..., 0] if j <= i else zero for j in range(size)] for i in range(size)]
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    check_against(lambda x: prefix_products(x, log=log), prefix, (decay,))
    check_against(lambda x: prefix_products(x, log=log, exclusive=True), exclusive, (decay,))
    check_against(lambda x: suffix_products(x, log=log), suffix, (decay,))
    check_against(lambda x: segment_products(x, log=log), segments, (decay[..., 0],))


def test_products_of_complex_decays_and_of_none() -> None:
    a = torch.randn(2, 6, dtype=torch.complex128)
    spans = segment_products(a)
    assert relative(spans[:, 4, 1], a[:, 2] * a[:, 3] * a[:, 4]) < 1e-14
    assert torch.autograd.gradcheck(segment_products, a.requires_grad_(), fast_mode=True)
    assert segment_products(a[:, :0]).shape == (2, 0, 0)
    assert suffix_products(a[:, :0, None]).shape == prefix_products(a[:, :0, None], exclusive=True).shape == (2, 0, 1)


def test_products_map_and_differentiate_twice() -> None:
    a = decays_with_zeros(3, 4)
    assert torch.equal(torch.func.vmap(segment_products)(a), segment_products(a))
    assert torch.autograd.gradgradcheck(segment_products, a.requires_grad_(), fast_mode=True)


def test_long_products_lose_nothing_in_float32() -> None:
    g = mixed_log_decays(4, 64)
    assert relative(segment_products(g.float(), log=True), segment_products(g, log=True)) < 3e-7
    sums = g.float().cumsum(-1)
    differences = (sums.unsqueeze(-1) - sums.unsqueeze(-2)).exp().tril()
    assert relative(differences, segment_products(g, log=True)) > 3e-6  # what running sums avoid
