"""Attention by inner products, in torch's fused kernels."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .gradient_again import gradient_again


class _DotProductAttention(torch.autograd.Function):
    """Torch's kernels can be differentiated once, by what they have kept (`kept`: the operands by themselves and what was
    made of them); what is to be differentiated again goes through the weights."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, scale: float, first: int | None, kept: list[Tensor]) -> Tensor:
        given = [x.detach().requires_grad_(x.requires_grad) for x in (q, k, v)]
        with torch.enable_grad():
            o = _dot_product_fused(given[0], given[1], given[2], scale, first)
        kept[:] = [*given, o]
        return o.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *given, ctx.scale, ctx.first, ctx.kept = inputs
        ctx.save_for_backward(*given)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [n for n in range(3) if ctx.needs_input_grad[n]]
        found: Sequence[Tensor | None]
        if torch.is_grad_enabled():
            run, given = _dot_product_plain, ctx.saved_tensors
            found = gradient_again(lambda x: [run(x[0], x[1], x[2], ctx.scale, ctx.first)], given, wanted, grads)
        else:
            found = torch.autograd.grad(ctx.kept[3], [ctx.kept[n] for n in wanted], grads[0], retain_graph=True)
        every: list[Tensor | None] = [None] * 6
        for n, x in zip(wanted, found, strict=True):
            every[n] = x
        return tuple(every)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        """The mapped axis joins the batch."""
        merged = [
            (x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
            for x, dim in zip(inputs[:3], in_dims[:3], strict=True)
        ]
        o: Tensor = _DotProductAttention.apply(*merged, *inputs[3:5], [])  # type: ignore[no-untyped-call]
        return o.unflatten(0, (info.batch_size, -1)), 0


def _dot_product_mask(q: Tensor, k: Tensor, first: int) -> Tensor:
    """Which keys count for which query, [T, S]."""
    rows = torch.arange(q.shape[-2], device=q.device) + first
    return torch.arange(k.shape[-2], device=q.device) <= rows[:, None]


def _dot_product_fused(q: Tensor, k: Tensor, v: Tensor, scale: float, first: int | None) -> Tensor:
    """[B, H, T, D]; where widths differ, the smaller one is filled with zeros, which change neither scores nor values.

    Torch knows a causal mask of as many rows as keys; after a state, when there are more keys, the mask is a tensor, and
    256 rows at a time share one.
    """
    rows, keys, wide = q.shape[-2], k.shape[-2], max(q.shape[-1], v.shape[-1])
    q, k, values = (torch.nn.functional.pad(x, (0, wide - x.shape[-1])) if x.shape[-1] < wide else x for x in (q, k, v))
    attend = torch.nn.functional.scaled_dot_product_attention
    if not scale > 0:  # torch multiplies what it has masked: -inf by it
        q, scale = q * scale, 1.0
    traced = torch.compiler.is_compiling()  # then lengths are symbols, which are not to be compared with numbers
    square = first == 0 and bool(rows == keys)
    if first is None or square or (not traced and first + 1 >= keys):
        return attend(q, k, values, is_causal=square, scale=scale)[..., : v.shape[-1]]
    side = rows if traced else 256
    found = []
    for row in (0,) if traced else range(0, rows, side):
        part, seen = q[..., row : row + side, :], keys if traced else min(keys, first + row + side)
        mask = _dot_product_mask(part, k[..., :seen, :], first + row)
        found.append(attend(part, k[..., :seen, :], values[..., :seen, :], mask, scale=scale))
    return torch.cat(found, -2)[..., : v.shape[-1]]


def _dot_product_plain(q: Tensor, k: Tensor, v: Tensor, scale: float, first: int | None) -> Tensor:
    """The same by all weights at once, which can be differentiated any number of times."""
    scores = (q * scale) @ k.mT
    if first is not None:
        scores = scores.masked_fill(~_dot_product_mask(q, k, first), -torch.inf)
    return torch.softmax(scores, -1) @ v


def dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, lead: tuple[int, ...], *, scale: float, first: int | None = None
) -> Tensor:
    """o[t] = sum over s of softmax(scale q[t] . k[s]) v[s], 0 where there are no keys.

    Shapes:  q [*lead, T, D], k [*lead, S, D], v [*lead, S, V], each axis of lead may be 1 -> o [*lead, T, V]
    With `first`, the position of the first row, a key s counts for t where s <= first + t.
    """
    rows, width, traced = q.shape[-2], v.shape[-1], torch.compiler.is_compiling()
    if not traced and 0 in (*lead, rows, k.shape[-2], width):
        return v.new_zeros(*lead, rows, width) + sum(x[..., :0].sum() for x in (q, k, v))
    heads = lead[0], math.prod(lead[1:])
    q, k, v = (x.expand(*lead, *x.shape[-2:]).reshape(*heads, *x.shape[-2:]) for x in (q, k, v))
    if traced or not torch.is_grad_enabled():
        o = _dot_product_fused(q, k, v, scale, first)
    else:
        o = _DotProductAttention.apply(q, k, v, scale, first, [])  # type: ignore[no-untyped-call]
    return o.reshape(*lead, rows, width)
