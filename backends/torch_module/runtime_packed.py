"""Functions for a generated module's packed sequences: one after another, or what all have to know of their boundaries.

Architecture invariant: as of `runtime`. Sequences lie along one axis, of batch size 1; `ends`, or `cu_seqlens`, is [N + 1],
from 0 to the packed length, and None where one sequence stands alone.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .runtime import _join, _last, _span, _windows
from .runtime_calls import _past


def _select_state(state: Any, place: int) -> Any:
    """The record of one sequence out of a batch of records."""
    if isinstance(state, dict):
        return {name: _select_state(value, place) for name, value in state.items()}
    if isinstance(state, list):
        return state[place]
    return state[place : place + 1] if isinstance(state, torch.Tensor) else state


def _sequences(state: Any) -> int | None:
    """Of how many sequences a record is, None where it does not say."""
    if isinstance(state, dict):
        return next((n for x in state.values() if (n := _sequences(x)) is not None), None)
    return len(state) if isinstance(state, torch.Tensor | list) else None


def _stack_states(states: Sequence[Any]) -> Any:
    """Records of several sequences as one, along the batch; caches of different lengths stay a list."""
    first = states[0]
    if isinstance(first, dict):
        return {name: _stack_states([s[name] for s in states]) for name in first}
    if isinstance(first, torch.Tensor) and all(s.shape == first.shape for s in states):
        return torch.cat(list(states))
    if not isinstance(first, torch.Tensor) and all(s == first for s in states):
        return first
    return list(states)


def _sequence_ends(cu_seqlens: Any, total: int) -> list[int]:
    """`cu_seqlens` as integers that rise from 0 to the packed length."""
    if isinstance(cu_seqlens, torch.Tensor):
        cu_seqlens = cu_seqlens.tolist()
    ends = list(cu_seqlens) if isinstance(cu_seqlens, list | tuple) else []
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in ends)
    if not whole or len(ends) < 2 or ends[0] != 0 or ends[-1] != total or sorted(ends) != ends:
        raise ValueError(f"cu_seqlens must rise from 0 to the packed length {total}, and is {cu_seqlens}")
    return ends


def _packed_together(
    inputs: Sequence[Tensor], cu_seqlens: Any, state: Any, return_state: bool
) -> bool:
    """Can packed sequences go through one call? On a GPU that has their ends too, and where no state comes or goes.

    Their ends are then not looked at: the host would have to wait for them.
    """
    return state is None and not return_state and _packed_with_states(inputs, cu_seqlens, state)


def _packed_with_states(inputs: Sequence[Tensor], cu_seqlens: Any, state: Any) -> bool:
    """The same where states may come and go, as many as there are sequences."""
    there = isinstance(cu_seqlens, torch.Tensor) and cu_seqlens.is_cuda and cu_seqlens.device == inputs[0].device
    return there and all(x.shape[0] == 1 for x in inputs) and _sequences(state) in (None, len(cu_seqlens) - 1)


def _first_positions(cu_seqlens: Any, total: int, device: torch.device) -> Tensor | None:
    """[T] does a position begin a packed sequence? None where there is one sequence alone."""
    if cu_seqlens is None:
        return None
    found = torch.zeros(total + 1, dtype=torch.bool, device=device)
    return found.index_fill_(0, cu_seqlens.long(), True)[:total]


def _sequence_numbers(cu_seqlens: Any, total: int, device: torch.device) -> Tensor | None:
    """[T] the packed sequence of each position, counted from 0. None where there is one sequence alone."""
    if cu_seqlens is None:
        return None
    return torch.searchsorted(cu_seqlens[1:].long(), torch.arange(total, device=device), right=True)


def _packed_past(mixer: str, state: Any, cu_seqlens: Any) -> tuple[int | torch.SymInt, list[int] | None]:
    """How many positions came before; of packed sequences all together, and of each."""
    if cu_seqlens is None or state is None:
        return _past(mixer, state), None if cu_seqlens is None else [0] * (len(cu_seqlens) - 1)
    counted = state.get("position") if isinstance(state, dict) else None
    every = counted if isinstance(counted, list) else [counted] * (len(cu_seqlens) - 1)
    pasts = [int(_past(mixer, {"position": n})) for n in every]
    return sum(pasts), pasts


def _sequence_spans(
    cu_seqlens: Any, total: int, pasts: list[int] | None, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor | None] | None:
    """Of each packed sequence, of each row of them and of each column, [.., 4] where the sequence is: the row that its
    position 0 would have if all of it were there, the columns where it begins and ends, and the row where it begins. Columns
    are what came before each sequence, and its rows: last, where anything came before, which entry of all that came before
    and of all rows each of them is. None where one sequence stands alone."""
    number = _sequence_numbers(cu_seqlens, total, device)
    if number is None:
        return None
    begin, end = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    if not any(pasts or ()):
        sequences = torch.stack([begin, begin, end, begin], -1).int()
        rows = sequences.index_select(0, number)
        return sequences, rows, rows, None
    before = torch.tensor([0, *itertools.accumulate(pasts or ())]).to(device, non_blocking=True)
    first, stop = begin + before[:-1], end + before[1:]
    sequences = torch.stack([end - stop + first, first, stop, begin], -1).int()
    place = torch.arange(total + sum(pasts or ()), device=device)
    own = torch.searchsorted(stop, place, right=True)
    entry = torch.where(place < (before[1:] + begin)[own], place - begin[own], sum(pasts or ()) + place - before[1:][own])
    return sequences, sequences.index_select(0, number), sequences.index_select(0, own), entry


def _own_positions(start: int, length: int, spans: Any, side: int, device: torch.device) -> Tensor:
    """Positions from `start` on; of packed sequences, each in its own one: of rows (side 0) or of columns (1)."""
    found = torch.arange(start, start + length, device=device)
    return found if spans is None else torch.arange(length, device=device) - spans[1 + side][:, side]


def _behind_pasts(past: Tensor, x: Tensor, dim: int, spans: Any) -> Tensor:
    """x behind all that came before it; of packed sequences, each behind its own."""
    joined = _join([past, x], dim)
    return joined if spans is None or spans[3] is None else joined.index_select(dim, spans[3])


def _apart(x: Tensor, dim: int, spans: Any) -> Any:
    """The part of each packed sequence, one behind the other in a batch where they are as long; the host waits for that."""
    if spans is None:
        return x
    return _stack_states([x.narrow(dim, first, stop - first).clone() for _, first, stop, _ in spans[0].tolist()])


def _positions(total: int, spans: Any) -> Any:
    """How many positions there have been; of packed sequences, in each."""
    return total if spans is None else _stack_states([stop - first for _, first, stop, _ in spans[0].tolist()])


def _behind(past: Tensor, x: Tensor, dim: int, ends: Any, number: Tensor | None) -> Tensor:
    """x behind what came before it; of packed sequences, each behind its own past [N or 1, ..]."""
    if number is None:
        return _join([past, x], dim)
    count, length = len(ends) - 1, past.shape[dim]
    past = past.expand(count, *past.shape[1:]).movedim(dim, 1)
    shape = (1, count * length, *past.shape[2:])
    joined = torch.cat([past.reshape(shape).movedim(1, dim), x], dim)
    place = torch.arange(x.shape[dim] + count * length, device=x.device)
    first = ends[:-1].long() + torch.arange(count, device=x.device) * length  # where each past begins
    own = torch.searchsorted(first, place, right=True) - 1
    back = place - first[own] - length  # behind its own past, or in it
    return joined.index_select(dim, torch.where(back < 0, (own + 1) * length + back, count * length + place - (own + 1) * length))


def _spanned(x: Tensor, dim: int, start: int, length: int, number: Tensor | None, before: int) -> Tensor:
    """`_span` of what has so many entries `before` it; where sequences are packed, each has its own."""
    return _span(x, dim, start, length) if number is None else x.index_select(dim, _rows(start, length, number, before))


def _windowed(x: Tensor, dim: int, start: int, length: int, width: int, number: Tensor | None, before: int) -> Tensor:
    """`_windows`, in the same way."""
    if number is None:
        return _windows(x, dim, start, length, width)
    places = _rows(start, length, number, before)[:, None] + torch.arange(width, device=x.device)
    found: Tensor = x.index_select(dim, places.flatten()).unflatten(dim, (length, width))
    return found.movedim(dim + 1, -1)


def _rows(start: int, length: int, number: Tensor, before: int) -> Tensor:
    return torch.arange(length, device=number.device) + number * before + start


def _states_before(begin: Tensor, states: Tensor, number: Tensor | None) -> Tensor:
    """[B, T, ..] the state before each step, from the first one [B, ..], or of packed sequences [1, T, ..] each one's own."""
    if number is None or not states.shape[1]:
        return _join([begin.unsqueeze(1), states], 1)[:, : states.shape[1]]
    head = torch.cat([number.new_full((1,), -1), number[:-1]]) != number
    own = begin.index_select(0, number).unsqueeze(0) if begin.shape[0] > 1 else begin.unsqueeze(1)
    shifted = torch.cat([states[:, :1], states[:, :-1]], 1)
    return torch.where(head.view(1, -1, *[1] * (states.dim() - 2)), own, shifted)


def _at_end(x: Tensor, past: Tensor, dim: int, ends: Any) -> Tensor:
    """The last entry of a dimension, or what came before the first; of packed sequences [1, ..] that of each, [N, ..]."""
    total, shape = x.shape[dim], [n for k, n in enumerate(x.shape) if k != dim]
    if ends is None or total == 0:
        count = shape[0] if ends is None else len(ends) - 1
        return (x if total else past).select(dim, -1).expand(count, *shape[1:]).clone()
    last = x[0].index_select(dim - 1, (ends[1:].long() - 1).clamp(min=0)).movedim(dim - 1, 0)
    there = (ends[1:] > ends[:-1]).view(-1, *[1] * (last.dim() - 1))
    return torch.where(there, last, past.select(dim, -1))


def _last_of(x: Tensor, dim: int, count: int, ends: Any, before: int) -> Tensor:
    """`_last` of what stands behind `before` entries; of packed sequences [1, ..] the last ones of each, [N, .., count, ..]."""
    if ends is None:
        return _last(x, dim, count)
    number = torch.arange(1, len(ends), device=x.device)
    places = (ends[1:].long() + number * before - count)[:, None] + torch.arange(count, device=x.device)
    found: Tensor = x[0].index_select(dim - 1, places.flatten()).unflatten(dim - 1, (len(number), count))
    return found.movedim(dim - 1, 0)


def _narrowed(x: Tensor, dims: tuple[int, ...], start: int, end: int) -> Tensor:
    """The part of one packed sequence: its positions along every streamed dimension."""
    for dim in dims:
        x = x.narrow(dim, start, end - start)
    return x


def _run_packed(
    run: Callable[..., Any],
    inputs: Sequence[Tensor],
    dims: Sequence[tuple[int, ...]],
    out_dims: Sequence[int | None],
    cu_seqlens: Any,
    state: Any,
    return_state: bool,
) -> Any:
    """Each packed sequence on its own: nothing crosses a boundary. `dims` are the streamed dimensions of each input."""
    total = next(x.shape[d[0]] for x, d in zip(inputs, dims, strict=True) if d)
    ends = _sequence_ends(cu_seqlens, total)
    if any(x.shape[0] != 1 for x in inputs):
        raise ValueError("packed sequences have batch size 1: all of them lie along one streamed axis")
    if state is not None and _sequences(state) not in (None, len(ends) - 1):
        raise ValueError(f"the state is of {_sequences(state)} sequences, and cu_seqlens of {len(ends) - 1}")
    outputs, states = [], []
    for n, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        pieces = [_narrowed(x, d, start, end) for x, d in zip(inputs, dims, strict=True)]
        own = None if state is None else _select_state(state, n)
        y, last = run(*pieces, state=own, return_state=True) if return_state else (run(*pieces, state=own), None)
        outputs.append(y if isinstance(y, tuple) else (y,))
        states.append(last)
    joined = tuple(_join_packed([o[k] for o in outputs], d) for k, d in enumerate(out_dims))
    y = joined if len(joined) > 1 else joined[0]
    return (y, _stack_states(states)) if return_state else y


def _join_packed(pieces: Sequence[Tensor], dim: int | None) -> Tensor:
    """An output along the streamed dimension; one that has none along the batch."""
    if dim is None and any(x.shape != pieces[0].shape for x in pieces):
        raise ValueError(
            "an output has no streamed axis, and a shape for each packed sequence: "
            f"{[list(x.shape[1:]) for x in pieces]}; run the sequences one by one"
        )
    return torch.cat(list(pieces), 0 if dim is None else dim)
