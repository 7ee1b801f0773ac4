"""Scans over matrices, against a literal loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.matrix_scan import matrix_scan

from .loops import check_against, relative

F64 = torch.float64


def scan_loop(a: Tensor, b: Tensor, start: Tensor, *, reverse: bool) -> Tensor:
    a, state, found = a.expand(*b.shape[:3], *a.shape[3:]), start, {}
    for t in range(b.shape[1])[:: -1 if reverse else 1]:
        state = a[:, t] @ state + b[:, t]
        found[t] = state
    return torch.stack([found[t] for t in range(b.shape[1])], 1)


def drawn(time: int, dtype: torch.dtype = F64) -> tuple[Tensor, ...]:
    a = 0.6 * torch.randn(2, time, 2, 3, 3, dtype=dtype)
    return a, torch.randn(2, time, 2, 3, 4, dtype=dtype), torch.randn(2, 2, 3, 4, dtype=dtype)


@pytest.mark.parametrize("time", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_scan(time: int, reverse: bool, dtype: torch.dtype) -> None:
    check_against(
        lambda *x: matrix_scan(*x, reverse=reverse), lambda *x: scan_loop(*x, reverse=reverse), drawn(time, dtype)
    )


@pytest.mark.parametrize("time", [1, 2, 31, 32, 33, 100])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_one_matrix_for_all_times(time: int, reverse: bool, dtype: torch.dtype) -> None:
    _, b, start = drawn(time, dtype)
    a = drawn(1, dtype)[0]
    check_against(
        lambda *x: matrix_scan(*x, reverse=reverse), lambda *x: scan_loop(*x, reverse=reverse), (a, b, start)
    )


def test_broadcast_empty_and_no_start() -> None:
    a, b, start = drawn(40)
    narrow = a[:1, :1, :1]
    check_against(matrix_scan, lambda a, b, s: scan_loop(a.expand(2, 40, 2, 3, 3), b, s, reverse=False), (narrow, b, start))
    assert relative(matrix_scan(a, b), scan_loop(a, b, 0 * start, reverse=False)) < 1e-13
    assert matrix_scan(a[:, :0], b[:, :0], start).shape == (2, 0, 2, 3, 4)


def test_float32_and_sixteen_bits() -> None:
    a, b, start = drawn(300)
    a = torch.linalg.qr(a)[0] * 0.999
    expected = scan_loop(a.float().double(), b.float().double(), start.float().double(), reverse=False)
    assert relative(matrix_scan(a.float(), b.float(), start.float()), expected) < 2e-6
    low = [x.bfloat16() for x in (0.5 * a, b, start)]
    assert relative(matrix_scan(*low), scan_loop(*(x.double() for x in low), reverse=False)) < 2e-6


def test_mapped_and_differentiated_twice() -> None:
    given = [x[:1, :5] if x.dim() == 5 else x[:1] for x in drawn(9)]
    stacked = [torch.stack([x, 0.5 * x]) for x in given]
    each = torch.stack([matrix_scan(*(s[i] for s in stacked)) for i in range(2)])
    assert relative(torch.func.vmap(matrix_scan)(*stacked), each) < 1e-13
    small = [x.clone().requires_grad_() for x in given]
    assert torch.autograd.gradcheck(matrix_scan, small, fast_mode=True)
    assert torch.autograd.gradgradcheck(matrix_scan, small, fast_mode=True)


def test_compiled_whole() -> None:
    check_against(torch.compile(matrix_scan, fullgraph=True, backend="eager"), matrix_scan, drawn(20))


def test_a_wrong_order_is_noticed() -> None:
    with pytest.raises(AssertionError, match="value 0"):
        check_against(
            lambda a, b, s: matrix_scan(a.mT, b, s), lambda *x: scan_loop(*x, reverse=False), drawn(40)
        )
