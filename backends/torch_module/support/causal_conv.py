"""Short causal convolution, one kernel per channel."""

import torch
from torch import Tensor


def causal_conv(x: Tensor, w: Tensor) -> Tensor:
    """y[t] = sum over j of w[j] x[t-j], with x = 0 before the start.

    Shapes:  x [B, T, ...], w [W, ...] (broadcasts over the axes of x after T) -> y [B, T, ...], float32 for 16 bits
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, w.dtype), torch.float32)
    x, w = x.to(dtype), w.to(dtype)
    time = x.shape[1]
    y = x * w[0] if w.shape[0] else torch.zeros_like(x)
    for j in range(1, w.shape[0]):
        before = torch.zeros_like(x[:, :j])
        y = y + torch.cat([before, x[:, : max(time - j, 0)]], 1)[:, :time] * w[j]
    return y
