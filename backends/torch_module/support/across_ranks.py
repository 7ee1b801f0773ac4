"""What enters each rank's piece of the stream, from the elements that all pieces are."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .complex_exp import complex_exp
from .ring_scan import _RING_SCAN_RINGS


def _rank_and_count(group: Any) -> tuple[int, int]:
    """This rank among those that hold pieces; "alone", or without a process group, it is the only one."""
    if group == "alone" or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(group), torch.distributed.get_world_size(group)


class _AllRanks(torch.autograd.Function):
    """x of every rank, stacked. What comes back to this rank's x is the sum of what the ranks send back to it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        found = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size(group))]
        torch.distributed.all_gather(found, x.contiguous(), group=group)
        return torch.stack(found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _FromAllRanks.apply(grads[0], ctx.group), None  # type: ignore[no-untyped-call]


class _FromAllRanks(torch.autograd.Function):
    """The sum over the ranks of what they have for this one: the adjoint of `_AllRanks`, as that is its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = x.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total, group=group)
        return total[torch.distributed.get_rank(group)].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _AllRanks.apply(grads[0], ctx.group), None  # type: ignore[no-untyped-call]


def _of_all_ranks(parts: Sequence[Tensor], group: Any, reverse: bool = False) -> list[list[Tensor]]:
    """The tensors of each rank, in the order of time, in one exchange; they have the same shapes everywhere."""
    plain = [torch.view_as_real(x) if x.is_complex() else x.byte() if x.dtype == torch.bool else x for x in parts]
    whole = _AllRanks.apply(torch.cat([x.flatten() for x in plain]), group)  # type: ignore[no-untyped-call]
    found = []
    for row in whole.unbind(0):
        pieces = row.split([x.numel() for x in plain])
        own = [piece.view(x.shape).to(x.dtype) for piece, x in zip(pieces, plain, strict=True)]
        own = [torch.view_as_complex(y) if x.is_complex() else y.to(x.dtype) for y, x in zip(own, parts, strict=True)]
        found.append(own)
    return found[::-1] if reverse else found


def _act(acts: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """How an element (a, b) acts on a state."""
    if acts == "exp":
        return lambda a, b, state: (complex_exp(a) if a.is_complex() else a.exp()) * state + b
    if acts == "times":
        return lambda a, b, state: a * state + b
    if acts == "matrix":
        return lambda a, b, state: a @ state + b
    add, mul, _, _ = _RING_SCAN_RINGS[acts]
    return lambda a, b, state: add(mul(a, state), b)


def across_ranks(
    a: Tensor, b: Tensor, start: Tensor, group: Any, *, acts: str, reverse: bool = False
) -> Tensor:
    """The state where this rank's piece begins, and the state after the last piece, from the element (a, b) of each.

    `start` counts on the first rank (reversed: the last one), the state before all pieces. Every rank must take part,
    in the backward pass too: what is returned depends on what all of them sent, if only by zeros.

    Shapes:  a, b, start, which broadcast, [B, ...]; a matrix a [B, H, N, N] with b, start [B, H, N, C] -> [2, B, ...]
    """
    rank, count = _rank_and_count(group)
    act = _act(acts)
    if count == 1:
        return torch.stack(torch.broadcast_tensors(start, act(a, b, start)))
    first = count - 1 if reverse else 0
    if rank == first:
        b = act(a, b, start)
    after: list[Tensor] = []
    for a_piece, b_piece in _of_all_ranks((a, b.contiguous()), group, reverse):
        after.append(act(a_piece, b_piece, after[-1]) if after else b_piece)
    states = torch.stack(torch.broadcast_tensors(start, *after))
    place = count - 1 - rank if reverse else rank
    return torch.stack([states[place], states[-1]])


def window_across_ranks(x: Tensor, before: Tensor, dim: int, group: Any) -> tuple[Tensor, Tensor]:
    """The last w positions before this rank's piece x, and the last w of all pieces; w is the length of `before`, which
    counts on the first rank. Every rank must take part, in the backward pass too.

    Shapes:  x [.., T, ..], T of any length on each rank, before [.., w, ..] -> twice [.., w, ..]
    """
    rank, count = _rank_and_count(group)
    width, own = before.shape[dim], min(before.shape[dim], x.shape[dim])
    shape = [n if d == dim else max(n, m) for d, (n, m) in enumerate(zip(before.shape, x.shape, strict=True))]
    before = before.expand(shape)
    x = x.narrow(dim, x.shape[dim] - own, own).expand([own if d == dim else n for d, n in enumerate(shape)])
    joined = torch.cat([before, x], dim).narrow(dim, own, width)
    if count == 1:
        return before, joined
    number = joined.new_full((1,), width if rank == 0 else own)
    after: list[Tensor] = []
    for piece, held in _of_all_ranks((joined, number), group):
        known = int(held.real if held.is_complex() else held)
        new = piece.narrow(dim, width - known, known)
        after.append(torch.cat([after[-1], new], dim).narrow(dim, known, width) if after else new)
    states = torch.stack([before, *after])
    return states[rank], states[-1]
