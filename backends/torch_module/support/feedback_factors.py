"""What a chunk needs to know of the decay where one state answers two reads: the inner one, and that of the output."""

import torch
from torch import Tensor

from .block_rows import block_rows
from .decayed_factors import decayed_factors
from .decayed_factors_adjoint import decayed_factors_adjoint
from .segment_products import segment_products
from .shared_factors_adjoint import shared_decay_adjoint


def feedback_factors(
    w: Tensor, q: Tensor, u: Tensor, decay: Tensor, *, log: bool, after: bool, keep: bool
) -> tuple[Tensor, ...]:
    """Pairs G[i, j] = (w_i . u_j) prod a_l over j < l <= i (l < i unless `after`), to be read where j < i; weights
    A[i, j] = (q_i . u_j) prod a_l over j < l <= i; w and q times the decays since the chunk's start; u times those to
    its end; the chunk's total; and what feedback_factors_adjoint wants kept. Unless told to `keep` its inputs for that, it
    may overwrite them.

    Shapes:  w, q, u [M, C, K], decay [M, C, 1 or K], C a power of two, at least 8 -> pairs, weights [M, C, C],
             three of [M, C, K], total [M, 1 or K], ..
    """
    if decay.shape[-1] > 1:
        moved = w if after else torch.cat([w[:, 1:], torch.zeros_like(w[:, :1])], 1)
        rows, log_blocks = _feedback_factors_rows(moved, q, u, decay, log)
        weights, reads, writes, total = (x.chunk(2) for x in decayed_factors(*rows, *log_blocks))
        pairs, leads = weights[0], reads[0]
        if not after:
            pairs = torch.cat([torch.zeros_like(pairs[:, :1]), pairs[:, :-1]], 1)
            leads = torch.cat([w[:, :1], leads[:, :-1]], 1)
        return pairs, weights[1], leads, reads[1], writes[0], total[0], *log_blocks
    a = decay.squeeze(-1)
    spans = segment_products(a, log=log)
    prefix = (a.cumsum(-1).exp_() if log else a.cumprod(-1)).unsqueeze(-1)
    inner, outer = torch.bmm(w, u.mT), torch.bmm(q, u.mT)
    factors = [
        (inner, _feedback_factors_before(spans, 0, after)),
        (outer, spans),
        (w, _feedback_factors_before(prefix, 1, after)),
        (q, prefix),
        (u, spans[:, -1].unsqueeze(-1)),
    ]
    if keep:
        return *(x * left for x, left in factors), prefix[:, -1], inner, outer, spans, prefix
    return *(x.mul_(left) for x, left in factors), prefix[:, -1]


def _feedback_factors_before(products: Tensor, first: float, after: bool) -> Tensor:
    """Products up to a row, or up to the row before it: `first` stands before the first."""
    return products if after else torch.cat([torch.full_like(products[:, :1], first), products[:, :-1]], 1)


def _feedback_factors_rows(
    moved: Tensor, q: Tensor, u: Tensor, decay: Tensor, log: bool
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Both reads as chunks of their own, rows first; and the logarithms of the blocks' decays where they are known."""
    pairs = torch.cat([moved, q]), u.repeat(2, 1, 1), decay.repeat(2, 1, 1)
    rows = [block_rows(x) for x in pairs]
    log_blocks: tuple[Tensor, ...] = (rows[2].sum(0),) if log else ()
    return [*rows[:2], rows[2].exp_() if log else rows[2]], log_blocks


def feedback_factors_adjoint(
    w: Tensor, q: Tensor, u: Tensor, decay: Tensor, kept: list[Tensor], given: list[Tensor], *, log: bool, after: bool
) -> tuple[Tensor, ...]:
    """Gradients of w, q, u and the decay as it was given, from those of pairs, weights, the three, and the total.

    The given gradients may be overwritten; those of pairs and weights are read where these are.
    """
    d_pairs, d_weights, d_leads, d_reads, d_writes, d_total = given
    if decay.shape[-1] > 1:
        moved, first = w, d_leads[:, :1]
        if not after:
            moved = torch.cat([w[:, 1:], torch.zeros_like(w[:, :1])], 1)
            d_pairs = torch.cat([d_pairs[:, 1:], torch.zeros_like(d_pairs[:, :1])], 1)
            d_leads = torch.cat([d_leads[:, 1:], torch.zeros_like(first)], 1)
        (reads, writes, a), log_blocks = _feedback_factors_rows(moved, q, u, decay, log)
        d_pairs = d_pairs.tril(-1) if after else d_pairs
        both = [torch.cat(pair) for pair in ((d_pairs, d_weights), (d_leads, d_reads))]
        both += [torch.cat([d, torch.zeros_like(d)]) for d in (d_writes, d_total)]
        found = decayed_factors_adjoint(reads, writes, a, both[0], both[1], both[2], both[3], *log_blocks)
        d_both, d_u, d_a = (x.permute(1, 2, 0, 3).reshape(2, *u.shape) for x in found)
        d_w = d_both[0] if after else torch.cat([first, d_both[0, :, :-1]], 1)
        d_decay = d_a.sum(0)
        return d_w, d_both[1], d_u.sum(0), d_decay * decay.exp() if log else d_decay
    inner, outer, spans, prefix = kept
    d_spans, d_inner = d_weights * outer, d_pairs * inner
    d_prefix = (d_reads * q).sum(-1, keepdim=True)
    d_lead = (d_leads * w).sum(-1, keepdim=True)
    if after:
        d_spans += d_inner
        d_prefix += d_lead
    else:
        d_spans[:, :-1] += d_inner[:, 1:]
        d_prefix[:, :-1] += d_lead[:, 1:]
    d_spans[:, -1] += (d_writes * u).sum(-1)
    d_prefix[:, -1] += d_total.sum(-1, keepdim=True)
    d_decay = shared_decay_adjoint(spans, prefix, d_spans, d_prefix).unsqueeze(-1)
    before = _feedback_factors_before(spans, 0, after)
    d_inner, d_outer = d_pairs.tril_(-1).mul_(before), d_weights.mul_(spans)
    d_w = d_leads.mul_(_feedback_factors_before(prefix, 1, after)).baddbmm_(d_inner, u)
    d_q = d_reads.mul_(prefix).baddbmm_(d_outer, u)
    d_u = d_writes.mul_(spans[:, -1].unsqueeze(-1)).baddbmm_(d_inner.mT, w).baddbmm_(d_outer.mT, q)
    return d_w, d_q, d_u, d_decay * decay.exp() if log else d_decay
