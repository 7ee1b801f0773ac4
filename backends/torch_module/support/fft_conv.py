"""Long causal convolution, one kernel per channel, by FFT."""

from typing import Any

import torch
from torch import Tensor


class _FftConv(torch.autograd.Function):
    """Keeps x and w only: both transforms are made again in the backward pass, and no complex graph is stored."""

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return _fft_conv_blocks(x, w, x.shape[-1], conj=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, w = ctx.saved_tensors
        grad = grads[0]
        # A correlation is a convolution with the conjugate spectrum: d_x = grad * w, d_w = sum over B of grad * x.
        correlate = _fft_conv_plain if torch.is_grad_enabled() else _fft_conv_blocks
        d_x = correlate(grad, w, x.shape[-1], conj=True) if ctx.needs_input_grad[0] else None
        d_w = correlate(grad, x, w.shape[-1], conj=True) if ctx.needs_input_grad[1] else None
        if d_w is not None:
            d_w = d_w.sum(0)
        return d_x, d_w

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, w: Tensor) -> tuple[Tensor, int]:
        """The mapped axis joins the channels."""
        x, w = (
            (y.unsqueeze(0).expand(info.batch_size, *y.shape) if dim is None else y.movedim(dim, 0))
            for y, dim in zip((x, w), in_dims, strict=True)
        )
        y = _FftConv.apply(x.transpose(0, 1).flatten(1, 2), w.flatten(0, 1))  # type: ignore[no-untyped-call]
        return y.unflatten(1, (info.batch_size, -1)), 1


def _fft_conv_size(first: int, second: int) -> int:
    """A power of two that holds both: other lengths cost three times as much."""
    if torch.compiler.is_exporting():  # a power of two would be built into the graph, and the sequence's length with it
        return first + second
    return 1 << max(first + second - 1, 1).bit_length()


def _fft_conv_plain(x: Tensor, w: Tensor, kept: int, *, conj: bool) -> Tensor:
    """x [B, C, T] with w [C, L] or [B, C, L]: the first `kept` terms of their convolution, or correlation if conj."""
    size = _fft_conv_size(x.shape[-1], w.shape[-1])
    if x.is_complex() or w.is_complex():
        spectrum = torch.fft.fft(w, size)
        y: Tensor = torch.fft.ifft(torch.fft.fft(x, size) * (spectrum.conj() if conj else spectrum), size)
    else:
        spectrum = torch.fft.rfft(w, size)
        y = torch.fft.irfft(torch.fft.rfft(x, size) * (spectrum.conj() if conj else spectrum), size)
    return y[..., :kept]


def _fft_conv_blocks(x: Tensor, w: Tensor, kept: int, *, conj: bool) -> Tensor:
    """The same, 64 channels at a time into one result, so that the spectra stay in cache."""
    dtype = torch.promote_types(x.dtype, w.dtype)
    y = torch.empty(*x.shape[:-1], kept, dtype=dtype, device=x.device)
    size = _fft_conv_size(x.shape[-1], w.shape[-1])
    forward, inverse = (torch.fft.fft, torch.fft.ifft) if dtype.is_complex else (torch.fft.rfft, torch.fft.irfft)
    for begin in range(0, x.shape[1], 64):
        block = slice(begin, begin + 64)
        spectrum = forward(w[..., block, :], size)
        if conj:
            spectrum = spectrum.conj()
        for row in range(x.shape[0]):
            other = spectrum[row] if spectrum.dim() == 3 else spectrum
            y[row, block] = inverse(forward(x[row, block], size).mul_(other), size)[..., :kept]
    return y


def fft_conv(x: Tensor, w: Tensor) -> Tensor:
    """y[t] = sum over j of w[j] x[t-j] along dim 1, with x = 0 before the start; for kernels as long as the input.

    Shapes:  x [B, T, C], w [L, C] real or complex (cut at T) -> y [B, T, C], float32 for 16 bits
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, w.dtype), torch.float32)
    last, kernel = x.to(dtype).mT, w[: x.shape[1]].to(dtype).mT
    if x.numel() == 0 or w.numel() == 0:
        return torch.zeros_like(x, dtype=dtype) + w.to(dtype).sum() * 0
    if torch.compiler.is_compiling():
        return _fft_conv_plain(last, kernel, x.shape[1], conj=False).mT
    y: Tensor = _FftConv.apply(last, kernel)  # type: ignore[no-untyped-call]
    return y.mT
