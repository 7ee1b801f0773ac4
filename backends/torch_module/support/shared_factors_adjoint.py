"""The gradient of shared_factors, through the products of decays: exact at a = 0, and nothing cancels."""

import torch
from torch import Tensor


def shared_factors_adjoint(
    q: Tensor,
    k: Tensor,
    kept: tuple[Tensor, ...],
    d_weights: Tensor,
    d_reads: Tensor,
    d_writes: Tensor,
    d_total: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k [M, C, K] and of the decay a itself [M, C]; the given gradients are overwritten."""
    products, spans, prefix = kept
    suffix = spans[:, -1].unsqueeze(-1)
    inner = d_writes * k
    d_suffix = inner.sum(-1)
    d_prefix = torch.mul(d_reads, q, out=inner).sum(-1, keepdim=True)
    d_prefix[:, -1] += d_total.sum(-1, keepdim=True)
    d_spans = d_weights * products
    d_spans[:, -1] += d_suffix
    d_a = shared_decay_adjoint(spans, prefix, d_spans, d_prefix)
    d_products = d_weights.mul_(spans)
    d_q = d_reads.mul_(prefix).baddbmm_(d_products, k)
    d_k = d_writes.mul_(suffix).baddbmm_(d_products.mT, q)
    return d_q, d_k, d_a


def shared_decay_adjoint(spans: Tensor, prefix: Tensor, d_spans: Tensor, d_prefix: Tensor) -> Tensor:
    """The gradient of the decay a itself [M, C] from those of the spans [M, C, C] and the prefixes [M, C, 1].

    With D[i, j] the product over j < l <= i, dD[i, j] / da_l = D[i, l] D[l-1, j]; a prefix is a column before all. What
    d_spans has on and above the diagonal meets zeros of D, so the last column has room for the prefixes.
    """
    d_spans[:, :, -1:] = d_prefix
    after = torch.bmm(spans.mT, d_spans)
    d_a = after[:, :, -1].clone()
    d_a[:, 1:] *= prefix[:, :-1, 0]
    d_a[:, 1:] += after[:, 1:].mul_(spans[:, :-1]).sum(-1)
    return d_a
