"""Products of decays between every two positions of a chunk."""

import math
from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward


class _SegmentProducts(torch.autograd.Function):
    """The gradient goes through products again, so it is exact at a = 0 and nothing cancels in it."""

    @staticmethod
    def forward(decay: Tensor, log: bool) -> Tensor:
        return _segment_products_alone(decay, log)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        decay, ctx.log = inputs
        ctx.save_for_backward(decay, output)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        decay, spans = ctx.saved_tensors
        # D[i, j] = D[i, l] a_l D[l-1, j] for every l in j+1 .. i
        after = spans.mT.conj() @ grads[0].tril()
        d_decay = (after[..., 1:, :] * spans[..., :-1, :].conj()).sum(-1)
        d_decay = torch.cat([torch.zeros_like(decay[..., :1]), d_decay], -1)
        return d_decay * decay.exp().conj() if ctx.log else d_decay, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], decay: Tensor, log: bool) -> tuple[Tensor, int]:
        """The mapped axis is one more leading axis."""
        return _SegmentProducts.apply(decay.movedim(in_dims[0], 0), log), 0  # type: ignore[no-untyped-call]


def _segment_products_alone(decay: Tensor, log: bool) -> Tensor:
    """Without a gradient."""
    if log and decay.dtype == torch.float32:
        # Differences of sums lose digits where strong decays mix with weak ones, and float64 has them to lose; a
        # reset, log 0, is a decay that leaves nothing. Powers of 2 take torch a third of the time of those of e.
        sums = decay.double().clamp_(min=-1e5).div_(math.log(2)).cumsum_(-1)
        spans = decay.new_empty(*decay.shape, decay.shape[-1])
        torch.sub(sums.unsqueeze(-1), sums.unsqueeze(-2), out=spans)
        return spans.exp2_().tril_()
    # Row j holds the decays after j and the unit elsewhere; running along it never subtracts two long sums.
    rows = decay.unsqueeze(-2).expand(*decay.shape, decay.shape[-1])
    if log:
        spans = rows.triu(1).cumsum_(-1).exp_()
    else:
        after = torch.ones(rows.shape[-2:], dtype=torch.bool, device=decay.device).triu(1)
        spans = torch.where(after, rows, 1).cumprod_(-1)
    return spans.triu_().mT


def _segment_products_plain(decay: Tensor, *, log: bool) -> Tensor:
    """The same in operations that can be traced."""
    rows = decay.unsqueeze(-2).expand(*decay.shape, decay.shape[-1])
    if log:
        return rows.triu(1).cumsum(-1).exp().triu().mT
    at = torch.arange(decay.shape[-1], device=decay.device)
    return torch.where(at > at[:, None], rows, 1).cumprod(-1).triu().mT


def segment_products(decay: Tensor, *, log: bool = False) -> Tensor:
    """D[i, j] = prod of a_l over j < l <= i, 1 on the diagonal and 0 above it.

    Shapes:  decay [..., C] -> [..., C, C], float32 for 16 bits
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf)
    """
    decay = decay.to(torch.promote_types(decay.dtype, torch.float32))
    if decay.shape[-1] == 0:
        return decay.unsqueeze(-1).expand(*decay.shape, 0)
    if torch.compiler.is_compiling():
        return _segment_products_plain(decay, log=log)
    if not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active():
        return _segment_products_alone(decay, log)  # half as long again to record it
    spans: Tensor = _SegmentProducts.apply(decay, log)  # type: ignore[no-untyped-call]
    return spans
