"""Packed sequences whose states come and go: their rows moved to where each sequence begins a chunk.

Between them are rows that write nothing and leave a state as it is. What is found inside a chunk then needs to know nothing
of sequences, and a walk through time is one for each, from its own first state to its own last one. Each operand is
copied once for that, and so is what is read.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class _Packed(NamedTuple):
    """[T] the packed sequence of each row, and where the row goes; the chunks before each sequence, and all [N + 1]; the
    ends [N + 1], and how many rows there are in chunks."""

    number: Tensor
    place: Tensor
    table: Tensor
    ends: Tensor
    rows: int

    @property
    def sequences(self) -> int:
        """How many there are."""
        return self.ends.shape[0] - 1

    def apart(self, x: Tensor, between: float = 0.0) -> Tensor:
        """[1, T, ..] where the rows go, with a number between."""
        return x.new_full((1, self.rows, *x.shape[2:]), between).index_copy(1, self.place, x)

    def together(self, x: Tensor) -> Tensor:
        """The rows that went apart, as they were."""
        return x.index_select(1, self.place)

    def first(self, dims: int) -> Tensor:
        """Does a row begin a sequence? With so many dimensions, time the second."""
        at = torch.arange(len(self.number), device=self.ends.device)
        return (at == self.ends[self.number]).view(1, -1, *[1] * (dims - 2))

    def before(self, x: Tensor, start: Tensor) -> Tensor:
        """The row before each of x, and before the first of a sequence its own of `start` [N, ..]."""
        earlier = torch.cat([x[:, :1], x[:, :-1]], 1)
        return torch.where(self.first(x.dim()), start.index_select(0, self.number).unsqueeze(0), earlier)

    def later(self, x: Tensor) -> Tensor:
        """The row after each of x, and zeros behind the last of a sequence."""
        masked = torch.where(self.first(x.dim()), 0, x)
        return torch.cat([masked[:, 1:], torch.zeros_like(x[:, :1])], 1)

    def last(self, x: Tensor, otherwise: float) -> Tensor:
        """[N, ..] the last row of each sequence; a number for one that has none."""
        found = x[0].index_select(0, (self.ends[1:] - 1).clamp(min=0))
        there = (self.ends[1:] > self.ends[:-1]).view(-1, *[1] * (found.dim() - 1))
        return torch.where(there, found, otherwise)

    def restarted(self, signs: Tensor) -> Tensor:
        """Signs of all decays so far [1, T, ..], from the first of each sequence on."""
        before = torch.cat([torch.ones_like(signs[:, :1]), signs], 1)
        return signs * before.index_select(1, self.ends[self.number])

    def asked(self, q: Tensor, start: Tensor | None, final: Tensor, scale: float) -> Tensor:
        """[N, H, V] what the first row of each sequence, q [1, T, H, K], reads of its first state."""
        begin = torch.zeros_like(final) if start is None else start.to(final.dtype).expand(final.shape)
        asked = q[0].index_select(0, self.ends[:-1].clamp(max=q.shape[1] - 1)).to(final.dtype) * scale
        return torch.einsum("nhk,nhkv->nhv", asked, begin)


def _packed(ends: Tensor, total: int, chunk: int) -> _Packed:
    """How sequences that end at `ends` [N + 1] are put into chunks of so many rows."""
    ends = ends.long()
    table = pad(((ends[1:] - ends[:-1] + chunk - 1) // chunk).cumsum(0), (1, 0))
    at = torch.arange(total, device=ends.device)
    number = torch.searchsorted(ends[1:], at, right=True)
    place = at - ends[number] + table[number] * chunk
    return _Packed(number, place, table.int(), ends, ((total + chunk - 1) // chunk + len(ends) - 1) * chunk)


def _alone(
    ends: Tensor, rows: Sequence[Tensor | None], start: Tensor | None, run: Callable[..., tuple[Tensor, ...]], state: int
) -> tuple[Tensor, ...]:
    """What `run(*rows, start)` gives for one packed sequence after another; result number `state` is of states."""
    found, places = [], ends.tolist()
    for n, (a, b) in enumerate(itertools.pairwise(places)):
        own = [x[:, a:b] if x is not None and x.shape[1] == places[-1] else x for x in rows]
        found.append(run(*own, None if start is None else start[n : n + 1] if len(start) > 1 else start))
    return tuple(torch.cat(parts, 0 if k == state else 1) for k, parts in enumerate(zip(*found, strict=True)))
