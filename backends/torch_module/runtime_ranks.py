"""Small functions that generated files take along where the stream lies in pieces on several ranks.

Architecture invariant: as in `runtime`; what they use of `torch.distributed` is what every backend of it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .support.complex_exp import complex_exp
from .support.ring_scan import _RING_SCAN_RINGS


class _AllRanks(torch.autograd.Function):
    """x of every rank, stacked. What comes back to this rank's x is the sum of what the ranks send back to it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        found = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size(group))]
        torch.distributed.all_gather(found, x, group=group)
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
        return _AllRanks.apply(grads[0].contiguous(), ctx.group), None  # type: ignore[no-untyped-call]


class _After(torch.autograd.Function):
    """x itself, whose gradient asks for that of an earlier exchange as well, if only with zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, earlier: Tensor) -> Tensor:
        ctx.save_for_backward(earlier)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (earlier,) = ctx.saved_tensors
        return grads[0], torch.zeros_like(earlier)


def _acts(how: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """How an element (a, b) acts on a state."""
    if how == "exp":
        return lambda a, b, state: (complex_exp(a) if a.is_complex() else a.exp()) * state + b
    if how == "times":
        return lambda a, b, state: a * state + b
    if how == "matrix":
        return lambda a, b, state: a @ state + b
    add, mul, _, _ = _RING_SCAN_RINGS[how]
    return lambda a, b, state: add(mul(a, state), b)


class _Ranks:
    """The ranks of a process group, each with a piece of the stream, and what they exchange in one call.

    A rank that waits for another in the backward pass must be sure that this one comes. So an exchange always has a
    gradient, whatever the own piece has (it may be empty), it asks for that of the exchange before, and the outputs ask
    for that of the last one.
    """

    def __init__(self, group: Any) -> None:
        alone = group == "alone" or not torch.distributed.is_available() or not torch.distributed.is_initialized()
        self.group, self.last = group, None
        self.count = 1 if alone else torch.distributed.get_world_size(group)
        self.rank = 0 if alone else torch.distributed.get_rank(group)

    def gathered(self, *parts: Tensor) -> list[list[Tensor]]:
        """The tensors of each rank, of the same shapes everywhere, in one exchange."""
        exact = [not (x.is_floating_point() or x.is_complex()) for x in parts]
        if any(exact) and not all(exact):  # integers stay what they are
            kinds = [iter(self.gathered(*(x for x, e in zip(parts, exact, strict=True) if e is kind))) for kind in (False, True)]
            rows = [(iter(a), iter(b)) for a, b in zip(*kinds, strict=True)]
            return [[next(row[kind]) for kind in exact] for row in rows]
        plain = [torch.view_as_real(x) if x.is_complex() else x.byte() if x.dtype == torch.bool else x for x in parts]
        x = torch.cat([x.flatten() for x in plain])
        if torch.is_grad_enabled() and x.is_floating_point():
            x = self.joined(x if x.requires_grad else x.requires_grad_())
        whole = _AllRanks.apply(x, self.group)  # type: ignore[no-untyped-call]
        self.last = whole if whole.requires_grad else self.last
        found = []
        for row in whole.unbind(0):
            own = [y.view(x.shape).to(x.dtype) for y, x in zip(row.split([x.numel() for x in plain]), plain, strict=True)]
            found.append([torch.view_as_complex(y) if x.is_complex() else y.to(x.dtype) for y, x in zip(own, parts, strict=True)])
        return found

    def joined(self, x: Tensor) -> Tensor:
        """x itself, of which a gradient is one of the last exchange, too."""
        if self.last is None or not (x.is_floating_point() or x.is_complex()):
            return x
        y: Tensor = _After.apply(x, self.last)
        return y

    def positions(self, before: int, own: int, device: torch.device) -> tuple[int, int]:
        """How many positions there are before this rank's piece, and on all ranks; `before` counts on the first rank."""
        if self.count == 1:
            return before, before + own
        ends = torch.tensor([own + before if self.rank == 0 else own], device=device)
        lengths = [int(length) for (length,) in self.gathered(ends)]
        return sum(lengths[: self.rank]) if self.rank else before, sum(lengths)

    def states(self, a: Tensor, b: Tensor, start: Tensor, *, acts: str, reverse: bool = False) -> Tensor:
        """The state where this rank's piece begins, and the state after the last piece, from the element (a, b) of each.

        `start`, the state before all pieces, counts on the first rank (reversed: on the last one).

        Shapes:  a, b, start, which broadcast, [B, ...]; a matrix a [B, H, N, N] with b, start [B, H, N, C] -> [2, B, ...]
        """
        act, count = _acts(acts), self.count
        if count == 1:
            return torch.stack(torch.broadcast_tensors(start, act(a, b, start)))
        place = count - 1 - self.rank if reverse else self.rank
        if place == 0:
            b = act(a, b, start)
        after: list[Tensor] = []
        pieces = self.gathered(a, b)
        for a_piece, b_piece in reversed(pieces) if reverse else pieces:
            after.append(act(a_piece, b_piece, after[-1]) if after else b_piece)
        states = torch.stack([start, *after])
        return torch.stack([states[place], states[-1]])

    def prefixes(
        self, fields: tuple[Tensor, ...], combine: Callable[..., tuple[Tensor, ...]], dim: int
    ) -> tuple[Tensor, ...]:
        """Prefix folds over a dimension, of all pieces, from those of this rank's piece alone."""
        if self.count == 1:
            return fields
        own = fields[0].shape[dim]
        last = [x.narrow(dim, own - 1, 1) if own else torch.zeros_like(x.sum(dim, keepdim=True)) for x in fields]
        some = torch.full((1,), own > 0, device=fields[0].device)
        earlier: tuple[Tensor, ...] | None = None
        for *piece, known in self.gathered(*last, some)[: self.rank]:
            if bool(known):
                earlier = tuple(piece) if earlier is None else combine(*earlier, *piece)
        if earlier is None or own == 0:
            return fields
        return combine(*(a.expand_as(x) for a, x in zip(earlier, fields, strict=True)), *fields)

    def whole_state(self, mixer: str, state: Any, return_state: bool) -> Any:
        """A state of all positions, on the first rank; none can be given back where they lie on several ranks."""
        if return_state and self.count > 1:
            raise ValueError(f"{mixer}: its state holds all positions, which lie on {self.count} ranks")
        return state if self.rank == 0 else None

    def window(self, x: Tensor, before: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """The last w positions before this rank's piece x, and the last w of all pieces; w is the length of `before`, which
        counts on the first rank.

        Shapes:  x [.., T, ..], T of any length on each rank, before [.., w, ..] -> twice [.., w, ..]
        """
        width, length = before.shape[dim], x.shape[dim]
        own = min(width, length)
        joined = torch.cat([before, x.narrow(dim, length - own, own)], dim).narrow(dim, own, width)
        if self.count == 1:
            return before, joined
        number = joined.new_full((1,), width if self.rank == 0 else own)
        after: list[Tensor] = []
        for piece, known in self.gathered(joined, number.detach()):
            new = int(known.real if known.is_complex() else known)
            kept = piece.narrow(dim, width - new, new)
            after.append(torch.cat([after[-1], kept], dim).narrow(dim, new, width) if after else kept)
        states = torch.stack([before, *after])
        return states[self.rank], states[-1]
