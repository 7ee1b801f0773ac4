"""Causal convolution, one kernel per channel: short ones one shifted product for each tap, long ones by FFT."""

import math

import torch
from torch import Tensor

from .fft_conv import fft_conv

CONV_TAPS = 64  # above, a transform is cheaper, and keeps two tensors for the backward pass instead of one for each tap


def causal_conv(x: Tensor, w: Tensor, *, each: bool = False) -> Tensor:
    """y[t] = sum over j of w[j] x[t-j], with x = 0 before the start; with `each`, a kernel for each sequence.

    Shapes:  x [B, T, ...], w [W, ...] or [B, W, ...] (broadcasts over the axes of x after T) -> y [B, T, ...], float32 for
             16 bits
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, w.dtype), torch.float32)
    x, w = x.to(dtype), (w if each else w[None]).to(dtype)
    time, taps = x.shape[1], w.shape[1]
    if taps > CONV_TAPS:
        lanes = torch.broadcast_shapes(x.shape[2:], w.shape[2:])
        x = x.expand(*x.shape[:2], *lanes).reshape(*x.shape[:2], math.prod(lanes))
        w = w.reshape(*w.shape[:2], *[1] * (len(lanes) - w.dim() + 2), *w.shape[2:])
        w = w.expand(-1, -1, *lanes).reshape(*w.shape[:2], math.prod(lanes))
        return fft_conv(x, w if each else w[0]).reshape(*x.shape[:2], *lanes)
    kernel = [tap.unsqueeze(1) for tap in w.unbind(1)]
    y = x * kernel[0] if taps else torch.zeros_like(x)
    for j in range(1, taps):
        before = torch.zeros_like(x[:, :j])
        y = y + torch.cat([before, x[:, : max(time - j, 0)]], 1)[:, :time] * kernel[j]
    return y
