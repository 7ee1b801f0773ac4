"""A nonlinear recurrence at all positions at once: multiple shooting on the starts of pieces of time."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .gradient_again import gradient_again
from .low_rank_scan import _low_rank_moved, _low_rank_product
from .newton_adjoint import _newton_is_narrow, _newton_size, newton_adjoint
from .newton_columns import _newton_full, _newton_gathered, _newton_product, _NewtonSlope
from .newton_rates import _NewtonRates, newton_rates
from .zero_of import zero_of

_NEWTON: dict[str, int] = {"iterations": 0, "pieces": 0, "stepped": 0}

# (states before, operands, with slopes?, where to write the states after, if it can) -> these, slopes[i][k] = d after[i] /
# d before[k]
_NewtonStep = Callable[..., tuple[list[Tensor], list[list[_NewtonSlope]]]]


class _NewtonScan(torch.autograd.Function):
    """Keeps operands and states. Implicit differentiation: the adjoint is affine whatever the step is, with the slopes
    at the solution, so a backward is one reverse scan and the step's own gradient at all positions in bulk."""

    @staticmethod
    def forward(
        step: _NewtonStep,
        rates: _NewtonRates | None,
        count: int,
        time: int,
        mixing: bool,
        low_rank: bool,
        *given: Tensor,
    ) -> tuple[Tensor, ...]:
        return tuple(_newton_solved(step, list(given[:count]), list(given[count:]), time, mixing, low_rank))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.step, ctx.rates, ctx.count, ctx.time, ctx.mixing, ctx.low_rank, *given = inputs
        ctx.save_for_backward(*given, *output)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # asked for once: a checkpoint recomputes them, once
        given, states = saved[: -ctx.count], saved[-ctx.count :]
        wanted = [k for k, needs in enumerate(ctx.needs_input_grad[6:]) if needs]
        found: Sequence[Tensor | None]
        if torch.is_grad_enabled():  # to be differentiated again: through the steps themselves
            found = gradient_again(
                lambda x: _newton_stepped(ctx.step, x[: ctx.count], x[ctx.count :], ctx.time), given, wanted, grads
            )
        elif ctx.rates is not None:
            found = newton_rates(ctx.rates, given, states, grads, wanted)
        else:
            found = newton_adjoint(ctx.step, given, states, grads, wanted, ctx.mixing, ctx.low_rank)
        every: list[Tensor | None] = [None] * (6 + len(given))
        for k, value in zip(wanted, found, strict=True):
            every[6 + k] = value
        return tuple(every)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], step: Any, rates: Any, count: int, time: int, *more: Any
    ) -> Any:
        """One step at a time: how many corrections are needed may differ along the mapped axis."""
        run = torch.vmap(lambda *each: tuple(_newton_stepped(step, each[:count], each[count:], time)), in_dims[6:])
        return run(*more[2:]), (0,) * count


def _newton_stepped(step: _NewtonStep, starts: Sequence[Tensor], operands: Sequence[Tensor], time: int) -> list[Tensor]:
    """One position after another."""
    columns = [x.split(1, 1) if x.shape[1] == time else (x,) * time for x in operands]
    states, found = list(starts), []
    for t in range(time):
        states, _ = step(states, [column[t] for column in columns], False)
        found.append(states)
    return [torch.cat(rows, 1) for rows in zip(*found, strict=True)]


def _newton_solved(
    step: _NewtonStep, starts: list[Tensor], operands: list[Tensor], time: int, mixing: bool, low_rank: bool
) -> list[Tensor]:
    """Pieces of 64 steps side by side; where their starts do not converge, as many of 32 and of 16; then single steps.

    What is kept before a restart are pieces whose starts are exactly the ends before, or lanes that have converged.
    """
    size, first, abreast = 64, 0, time // 64
    found: list[list[Tensor]] = []
    _NEWTON.update(iterations=0, pieces=0, stepped=0)
    while size >= 16 and (time - first) // size >= 4:
        count = min(abreast, (time - first) // size)
        part = [x if x.shape[1] != time else x[:, first : first + count * size] for x in operands]
        heads = [s.expand(s.shape[0], count, *s.shape[2:]) for s in starts]
        states, exact = _newton_pieces(step, heads, part, size, mixing, low_rank, guess=True)
        if exact < count:
            states = [s[:, : exact * size] for s in states]
            size //= 2
        found.append(states)
        starts = [s[:, -1:] for s in states]
        first += states[0].shape[1]
        _NEWTON["pieces"] += exact
    if first < time:
        found.append(
            _newton_stepped(step, starts, [x if x.shape[1] != time else x[:, first:] for x in operands], time - first)
        )
        _NEWTON["stepped"] = time - first
    return found[0] if len(found) == 1 else [torch.cat(rows, 1) for rows in zip(*found, strict=True)]


def _newton_pieces(
    step: _NewtonStep,
    heads: Sequence[Tensor],
    operands: list[Tensor],
    size: int,
    mixing: bool,
    low_rank: bool,
    guess: bool = False,
) -> tuple[list[Tensor], int]:
    """States over the pieces that begin at `heads`, and how many hold: all where these converge, else the exact ones.

    A guess is the last three quarters of a sweep, as if they began at the head: a step forgets, as a rule. The first
    two corrections copy the ends, and so do later ones while that gains a factor of ten; the others are
    Newton's, d[n+1] = r[n] + P[n] d[n] with the defects r and the products P of a piece's slopes, unless these are wide
    matrices of full rank. A step is entrywise, where lanes (the last dimension) are not mixed: when at most half of
    them have not converged, only these go on.
    """
    count = heads[0].shape[1]
    each = [x.unflatten(1, (count, size)).unbind(2) if x.shape[1] != 1 else (x,) * size for x in operands]
    columns = list(zip(*each, strict=True)) or [()] * size
    tolerance = 1e-12 if heads[0].dtype == torch.float64 else 1e-6
    changes: list[float] = []
    defects: list[float] = []
    narrow = _newton_is_narrow(heads, low_rank)
    if guess:
        ends: Sequence[Tensor] = heads
        for column in columns[size // 4 :]:
            ends, _ = step(ends, column, False)
        heads = [torch.cat([head[:, :1], end[:, :-1]], 1) for head, end in zip(heads, ends, strict=True)]
        _NEWTON["iterations"] += 1
    found = [h.new_empty(h.shape[0], count, size, *h.shape[2:]) for h in heads]
    rows = list(zip(*(x.unbind(2) for x in found), strict=True))
    while True:
        slow = len(defects) >= 2 and not defects[-1] <= 0.1 * defects[-2]
        slow = slow and (not mixing or low_rank or narrow)
        states, product, maps = heads, None, []
        for column, into in zip(columns, rows, strict=True):
            states, slopes = step(states, column, slow, into)
            if slow and low_rank and not narrow:
                maps.append(slopes)
            elif slow:
                product = _newton_product(_newton_full(slopes), product, heads[0].dim())
            for place, state in zip(into, states, strict=True):
                if state is not place:
                    place.copy_(state)
        _NEWTON["iterations"] += 1
        gaps = [end[:, :-1] - head[:, 1:] for end, head in zip(states, heads, strict=True)]
        defects.append(_newton_size(gaps, states))
        solved = defects[-1] <= tolerance
        moved = gaps
        if maps and not solved:
            moved = _low_rank_moved(*_low_rank_product(*_newton_gathered(maps, heads[0].shape)), gaps)
        elif product is not None and not solved:
            moved = _newton_moved(product, gaps, states)
        changes.append(defects[-1] if moved is gaps else _newton_size(moved, states))
        if solved or _newton_hopeless(changes):
            return [x.flatten(1, 2) for x in found], count if solved else _newton_exact(gaps)
        heads = [
            # the end and what moved it, so that a start is exactly the end before it where that has not moved
            torch.cat([head[:, :1], end[:, :-1] + (move - gap)], 1)
            for head, end, move, gap in zip(heads, states, moved, gaps, strict=True)
        ]
        lanes = None if mixing else _newton_open_lanes(gaps, states, tolerance)
        if lanes is not None:
            heads = [_newton_lanes(h, lanes) for h in heads]
            some = [x if x.shape[-1] == 1 else _newton_lanes(x, lanes) for x in operands]
            wholes = [x.flatten(1, 2) for x in found]
            parts, exact = _newton_pieces(step, heads, some, size, mixing, low_rank)
            for whole, part in zip(wholes, parts, strict=True):
                whole.index_copy_(-1, lanes, part)
            return wholes, exact


def _newton_open_lanes(gaps: Sequence[Tensor], states: Sequence[Tensor], tolerance: float) -> Tensor | None:
    """The lanes with a defect above the tolerance, where there is such a dimension and they are at most half of it."""
    if states[0].dim() < 3:
        return None
    open_ = torch.zeros(states[0].shape[-1], dtype=torch.bool, device=states[0].device)
    for gap, state in zip(gaps, states, strict=True):
        bound = tolerance * state.abs().flatten(1).amax(1)
        high = gap.abs().flatten(1, -2).amax(1) > bound[:, None]
        open_ |= high.any(0)
    lanes = open_.nonzero().squeeze(1)
    return lanes if 0 < 2 * len(lanes) <= len(open_) else None


def _newton_lanes(x: Tensor, lanes: Tensor) -> Tensor:
    """Some entries along the last dimension. (Twice to four times as fast as index_select along it.)"""
    return x.gather(-1, lanes.expand(*x.shape[:-1], -1))


def _newton_hopeless(changes: list[float]) -> bool:
    """Not finite; or, from the fifth on, not half of what it was two before, and large or so for long."""
    last, n = changes[-1], len(changes)
    return last == math.inf or (n >= 5 and last > 0.5 * changes[-3] and (last > 1e-3 or n > 8))


def _newton_exact(gaps: Sequence[Tensor]) -> int:
    """How many leading pieces start exactly where the one before them ends."""
    same = [(g == 0).transpose(0, 1).flatten(1).all(1) for g in gaps]
    return 1 + int(torch.stack(same).all(0).long().cumprod(0).sum())


def _newton_moved(product: list[list[Tensor | None]], gaps: Sequence[Tensor], states: Sequence[Tensor]) -> list[Tensor]:
    """d[n+1] = r[n] + P[n] d[n], d[0] = 0: the change of every start but the first."""
    shape, rank = states[0].shape, states[0].dim()
    each = [[None if p is None else p.expand(shape + p.shape[rank:]).unbind(1) for p in row] for row in product]
    moved: list[list[Tensor]] = [[g[:, 0]] for g in gaps]
    for n in range(1, gaps[0].shape[1]):
        last = [m[-1] for m in moved]
        for i, row in enumerate(each):
            total = gaps[i][:, n]
            for p, d in zip(row, last, strict=True):
                if p is not None:
                    total = total + (p[n] * d if p[n].dim() == d.dim() else (p[n] @ d.unsqueeze(-1)).squeeze(-1))
            moved[i].append(total)
    return [torch.stack(m, 1) for m in moved]


def newton_scan(
    step: _NewtonStep,
    starts: Sequence[Tensor],
    operands: Sequence[Tensor],
    time: int,
    *,
    reverse: bool = False,
    mixing: bool = False,
    low_rank: bool = False,
    rates: _NewtonRates | None = None,
) -> list[Tensor]:
    """h[t] = step(h[t-1], x[t]) along dim 1, h[-1] = start; reversed, h[t] = step(h[t+1], x[t]). A step is entrywise, or
    with `mixing` reads entries along the last dimension from one another: then its slopes may be matrices, `low_rank` ones
    as diagonals, columns and rows. `rates` are derivatives of an entrywise step, which its gradient is then made of.

    Shapes:  starts [B, 1, ...], each operand [B or 1, T or 1, ...] -> as many states [B, T, ...]
    Agrees with stepping: `_NEWTON` says how many sweeps over the pieces it took, and what was stepped in the end.
    """
    if reverse:
        operands = [x.flip(1) for x in operands]
    if time == 0:
        _NEWTON.update(iterations=0, pieces=0, stepped=0)
        return [s[:, :0] + zero_of(*starts, *operands) for s in starts]
    known = all(type(x) in (Tensor, torch.nn.Parameter) and not x.is_meta for x in (*starts, *operands))
    if torch.compiler.is_compiling() or not known:  # no numbers to decide by
        states = _newton_stepped(step, starts, operands, time)
    elif time < 256:
        _NEWTON.update(iterations=0, pieces=0, stepped=time)
        states = _newton_stepped(step, starts, operands, time)
    else:
        flags = step, rates, len(starts), time, mixing, low_rank
        states = list(_NewtonScan.apply(*flags, *starts, *operands))  # type: ignore[no-untyped-call]
    return [h.flip(1) for h in states] if reverse else states
