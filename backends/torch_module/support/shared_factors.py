"""What a chunk needs to know of a decay that all channels share."""

import torch
from torch import Tensor

from .segment_products import segment_products


def shared_factors(
    q: Tensor, k: Tensor, decay: Tensor, *, log: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Weights A[i, j] = (q_i . k_j) prod a_l over j < l <= i; reads q_i prod over l <= i; writes k_j prod over l > j.

    Not differentiable: see shared_factors_adjoint, which wants what is returned last. Unless told to `keep` its inputs
    for that, it overwrites them.

    Shapes:  q, k [M, C, K], decay [M, C] -> weights [M, C, C], reads, writes [M, C, K], total [M, 1], and, if
             kept, the products q k^T, the spans (products of decays between two positions) and the prefixes
    """
    spans = segment_products(decay, log=log)
    prefix = (decay.cumsum(-1).exp_() if log else decay.cumprod(-1)).unsqueeze(-1)
    suffix = spans[:, -1].unsqueeze(-1)
    products = torch.bmm(q, k.mT)
    if keep:
        return products * spans, q * prefix, k * suffix, prefix[:, -1], (products, spans, prefix)
    return products.mul_(spans), q.mul_(prefix), k.mul_(suffix), prefix[:, -1], ()
