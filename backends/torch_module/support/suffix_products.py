"""Products of decays to the end of a chunk."""

import torch
from torch import Tensor


def suffix_products(decay: Tensor, *, log: bool = False) -> Tensor:
    """s_j = prod of a_l over l > j along dim -2: what is left at the chunk's end of a write at j.

    Shapes:  decay [..., C, K] -> [..., C, K], float32 for 16 bits
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf)
    """
    decay = decay.to(torch.promote_types(decay.dtype, torch.float32))
    unit = torch.full_like(decay[..., :1, :], 0.0 if log else 1.0)
    later = torch.cat([unit, decay[..., 1:, :].flip(-2)], -2)[..., : decay.shape[-2], :]
    return (later.cumsum(-2).exp() if log else later.cumprod(-2)).flip(-2)
