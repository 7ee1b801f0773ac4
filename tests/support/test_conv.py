"""Causal convolutions against a literal loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.causal_conv import causal_conv
from backends.torch_module.support.fft_conv import fft_conv

from .loops import check_against, conv_loop, relative

F64 = torch.float64


@pytest.mark.parametrize("time", [1, 2, 63, 65])
@pytest.mark.parametrize("length", [1, 4, 70])
@pytest.mark.parametrize("conv", [causal_conv, fft_conv])
def test_conv(conv: object, time: int, length: int) -> None:
    assert callable(conv)
    check_against(conv, conv_loop, (torch.randn(2, time, 3, dtype=F64), torch.randn(length, 3, dtype=F64)))


@pytest.mark.parametrize("conv", [causal_conv, fft_conv])
def test_complex_kernels(conv: object) -> None:
    assert callable(conv)
    x, w = torch.randn(2, 20, 3, dtype=F64), torch.randn(9, 3, dtype=torch.complex128)
    assert relative(conv(x, w), conv_loop(x.to(w.dtype), w)) < 1e-12
    given = x.requires_grad_(), w.requires_grad_()
    assert torch.autograd.gradcheck(conv, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(conv, given, fast_mode=True)


def test_a_kernel_for_each_sequence_and_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel for all sequences, or one for each; blocks of few channels, and of several sequences."""
    from backends.torch_module.support import fft_conv as module

    for numbers, batch, channels in ((1 << 20, 3, 2), (128, 2, 5), (256, 3, 1)):
        monkeypatch.setattr(module, "FFT_NUMBERS", numbers)
        x, each = torch.randn(batch, 20, channels, dtype=F64), torch.randn(batch, 20, channels, dtype=F64)
        check_against(fft_conv, lambda x, w: torch.cat([conv_loop(x[[n]], w[n]) for n in range(len(x))]), (x, each))
        check_against(fft_conv, lambda x, w: conv_loop(x, w[0]), (x, each[:1]))


def test_many_taps_keep_as_much_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand taps, axes that broadcast, and no tensor for each tap among what is kept for the backward pass."""
    x, w = torch.randn(2, 80, 2, 3, dtype=F64), torch.randn(200, 3, dtype=F64)
    check_against(causal_conv, conv_loop, (x, w))
    kept: list[int] = []

    def note(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    x, w = torch.randn(2, 80, 4, requires_grad=True), torch.randn(1000, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        causal_conv(x, w)
    assert sum(kept) <= 4 * (x.numel() + w.numel())


def test_more_channels_than_a_block_and_more_axes() -> None:
    x, w = torch.randn(1, 33, 130), torch.randn(33, 130)
    assert relative(fft_conv(x, w), conv_loop(x.double(), w.double())) < 1e-6
    x, w = torch.randn(1, 9, 2, 3, dtype=F64), torch.randn(4, 3, dtype=F64)
    assert relative(causal_conv(x, w), conv_loop(x, w)) < 1e-14


@pytest.mark.parametrize("conv", [causal_conv, fft_conv])
def test_empty_and_sixteen_bits(conv: object) -> None:
    assert callable(conv)
    assert conv(torch.randn(2, 0, 3), torch.randn(4, 3)).shape == (2, 0, 3)
    assert conv(torch.randn(2, 5, 3), torch.randn(0, 3)).abs().max() == 0
    x, w = torch.randn(2, 20, 3).bfloat16(), torch.randn(4, 3).bfloat16()
    assert conv(x, w).dtype == torch.float32
    assert relative(conv(x, w), conv_loop(x.double(), w.double())) < 1e-6


def test_mapped_and_compiled() -> None:
    x, w = torch.randn(4, 2, 20, 3, dtype=F64), torch.randn(20, 3, dtype=F64)
    mapped = torch.func.vmap(fft_conv, (0, None))(x, w)
    assert relative(mapped, torch.stack([fft_conv(x[i], w) for i in range(4)])) < 1e-13

    def loss(w: Tensor, x: Tensor) -> Tensor:
        return fft_conv(x, w).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(w, x)
    assert relative(found, torch.stack([torch.func.grad(loss)(w, x[i]) for i in range(4)])) < 1e-12
    compiled = torch.compile(fft_conv, fullgraph=True, backend="eager")
    assert relative(compiled(x[0], w), fft_conv(x[0], w)) < 1e-13
