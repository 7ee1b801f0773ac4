"""Products of decays from the start of a chunk."""

import torch
from torch import Tensor


def prefix_products(decay: Tensor, *, log: bool = False, exclusive: bool = False) -> Tensor:
    """p_i = prod of a_l over l <= i along dim -2; exclusive: over l < i.

    Shapes:  decay [..., C, K] -> [..., C, K], float32 for 16 bits
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf)
    """
    decay = decay.to(torch.promote_types(decay.dtype, torch.float32))
    if exclusive:
        unit = torch.full_like(decay[..., :1, :], 0.0 if log else 1.0)
        decay = torch.cat([unit, decay[..., :-1, :]], -2)[..., : decay.shape[-2], :]
    return decay.cumsum(-2).exp() if log else decay.cumprod(-2)
