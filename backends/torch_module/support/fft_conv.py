"""Long causal convolution, one kernel per channel, by FFT."""

from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .zero_of import zero_of

FFT_NUMBERS = 1 << 19  # in the transforms of a block of channels and rows: the spectra stay in cache


class _FftConv(torch.autograd.Function):
    """Keeps x and w, and the transforms of a kernel that all sequences share; those of x are made again in the backward
    pass, and no complex graph is stored.

    One signal, x [B, T, 1], may meet many kernels: it is transformed once for a block of them.
    """

    @staticmethod
    def forward(x: Tensor, w: Tensor, keep: bool) -> tuple[Tensor, ...]:
        size, dtype = _fft_conv_size(x.shape[1], w.shape[1]), torch.promote_types(x.dtype, w.dtype)
        y = torch.empty(x.shape[0], w.shape[2], x.shape[1], dtype=dtype, device=x.device)
        rows, lanes = _fft_blocks(y.mT, size)
        kept = []
        for lane in lanes:
            shared = _spectrum(w[..., lane], size, dtype) if len(w) == 1 else None
            if keep and shared is not None:
                kept.append(shared)
            for row in rows:
                spectrum = _spectrum(_lanes_of(x, lane)[row], size, dtype)
                kernel = _spectrum(w[row, :, lane], size, dtype) if shared is None else shared
                y[row, lane] = _sequence(_times(spectrum, kernel), size, dtype)[..., : x.shape[1]]
        return y.mT, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:2], *output[1:])

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        """A correlation is a convolution with the conjugate spectrum: d_x = grad * w, d_w = sum over B of grad * x."""
        x, w, *kept = ctx.saved_tensors
        if (grad := grads[0]) is None:
            return None, None, None
        wants_x, wants_w, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            d_x = _fft_conv_plain(grad, w, x.shape[1], conj=True).sum_to_size(x.shape) if wants_x else None
            d_w = _fft_conv_plain(grad, x, w.shape[1], conj=True).sum_to_size(w.shape) if wants_w else None
            return d_x, d_w, None
        size, dtype = _fft_conv_size(x.shape[1], w.shape[1]), grad.dtype
        d_x, d_w = (torch.empty_like(y.mT, dtype=dtype, memory_format=torch.contiguous_format) for y in (x, w))
        rows, lanes = _fft_blocks(grad, size)
        signals = None  # where one signal meets all kernels: the sum over these
        for n, lane in enumerate(lanes):
            shared = None
            if len(w) == 1 and wants_x:
                shared = kept[n] if kept else _spectrum(w[..., lane], size, dtype)
            total: Tensor | None = None
            for row in rows:
                given = _spectrum(grad[row, :, lane], size, dtype)
                if wants_w:
                    product = _times(_spectrum(_lanes_of(x, lane)[row], size, dtype).conj_physical_(), given)
                    if len(w) > 1:
                        d_w[row, lane] = _sequence(product, size, dtype)[..., : w.shape[1]]
                    else:
                        product = product.sum(0, keepdim=True) if len(product) > 1 else product
                        total = product if total is None else total.add_(product)
                if wants_x:
                    weights = _spectrum(w[row, :, lane], size, dtype) if shared is None else shared
                    given.conj_physical_().mul_(weights).conj_physical_()  # a `weights.conj()` would be copied
                    if x.shape[2] == 1:
                        signals = given.new_zeros(len(x), 1, given.shape[2]) if signals is None else signals
                        signals[row].add_(given.sum(1, keepdim=True))
                    else:
                        d_x[row, lane] = _sequence(given, size, dtype)[..., : x.shape[1]]
            if total is not None:
                d_w[:, lane] = _sequence(total, size, dtype)[..., : w.shape[1]]
        if signals is not None:
            d_x = _sequence(signals, size, dtype)[..., : x.shape[1]]
        return d_x.mT if wants_x else None, d_w.mT if wants_w else None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, w: Tensor, keep: bool) -> tuple[Any, Any]:
        """The mapped axis joins the channels."""
        x, w = (
            y.unsqueeze(2).expand(*y.shape[:2], info.batch_size, -1) if dim is None else y.movedim(dim, 2)
            for y, dim in zip((x, w), in_dims[:2], strict=True)
        )
        x = x.expand(*x.shape[:3], w.shape[3])
        y, *kept = _FftConv.apply(x.flatten(2), w.flatten(2), keep)  # type: ignore[no-untyped-call]
        return (y.unflatten(2, (info.batch_size, -1)), *kept), (2, *[None] * len(kept))


def _fft_conv_size(first: int, second: int) -> int:
    """A power of two that holds both: other lengths cost three times as much."""
    if torch.compiler.is_exporting():  # a power of two would be built into the graph, and the sequence's length with it
        return first + second
    return 1 << max(first + second - 1, 1).bit_length()


def _fft_blocks(x: Tensor, size: int) -> tuple[list[slice], list[slice]]:
    """Rows and channels of x [B, T, C], in blocks whose transforms are small together."""
    many = max(1, FFT_NUMBERS // size)
    wide = max(1, min(x.shape[2], many))
    tall = max(1, many // wide)
    rows, lanes = range(0, x.shape[0], tall), range(0, x.shape[2], wide)
    return [slice(r, r + tall) for r in rows], [slice(c, c + wide) for c in lanes]


def _lanes_of(x: Tensor, lane: slice) -> Tensor:
    """Some channels, or the one that serves all."""
    return x if x.shape[2] == 1 else x[..., lane]


def _times(spectrum: Tensor, other: Tensor) -> Tensor:
    """The product, in place where it is of that size."""
    return spectrum.mul_(other) if spectrum.shape[1] == other.shape[1] else spectrum * other


def _spectrum(x: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """The transform over time, with zeros behind: [B, T, C] -> [B, C, size] complex, or its half where x is real."""
    x = x if x.stride(1) == 1 else x.contiguous()  # some channels of many change places with time in half the time from a copy
    spectrum: Tensor = (torch.fft.fft if dtype.is_complex else torch.fft.rfft)(x.mT.to(dtype), size)
    return spectrum


def _sequence(spectrum: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """What `_spectrum` is the transform of."""
    sequence: Tensor = (torch.fft.ifft if dtype.is_complex else torch.fft.irfft)(spectrum, size)
    return sequence


def _fft_conv_plain(x: Tensor, w: Tensor, kept: int, *, conj: bool) -> Tensor:
    """x and w [B, T, C], either B 1: the first `kept` terms of their convolution, or correlation if conj."""
    size = _fft_conv_size(x.shape[1], w.shape[1])
    real = not (x.is_complex() or w.is_complex())
    forward, inverse = (torch.fft.rfft, torch.fft.irfft) if real else (torch.fft.fft, torch.fft.ifft)
    spectrum = forward(w, size, dim=1)
    y: Tensor = inverse(forward(x, size, dim=1) * (spectrum.conj() if conj else spectrum), size, dim=1)
    return y[:, :kept]


def fft_conv(x: Tensor, w: Tensor) -> Tensor:
    """y[t] = sum over j of w[j] x[t-j] along dim 1, with x = 0 before the start; for kernels as long as the input.

    Shapes:  x [B, T, C], or [B, T, 1] for one signal and many kernels, w [L, C] or, a kernel for each sequence,
             [B, L, C], real or complex (cut at T) -> y [B, T, C], float32 for 16 bits
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, w.dtype), torch.float32)
    x, kernel = x.to(dtype), (w if w.dim() == 3 else w[None])[:, : x.shape[1]].to(dtype)
    if x.numel() == 0 or w.numel() == 0:
        return torch.zeros_like(x.expand(-1, -1, kernel.shape[2])) + zero_of(w.to(dtype))
    if torch.compiler.is_compiling():
        return _fft_conv_plain(x, kernel, x.shape[1], conj=False)
    keep = torch.is_grad_enabled() and x.requires_grad
    y: Tensor = _FftConv.apply(x, kernel, keep)[0]  # type: ignore[no-untyped-call]
    return y
