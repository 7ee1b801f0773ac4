"""All states of a nonlinear recurrence whose entries do not depend on one another, by kernels written for its step.

A program keeps some entries in registers and steps them through time, as the equations say: where entries alone fill a
device nothing is faster, and there is nothing to converge. Else time is cut into pieces, which all begin at the start and
are walked side by side; then each at the end of the one before, until the starts stay to 1e-6 of the largest end: multiple
shooting, as in `newton_scan`, with copies for corrections; the first piece of a packed sequence keeps its start. What a
piece forgets of its start in its 128 steps or more, it forgets in two or three sweeps. Where a third does not gain a factor
of ten, the steps are taken one after another in one piece, which is exact: corrections by slopes would read everything
again for the time of a few sweeps.
The gradient is that of the states that were found, one walk back in time: it does not go through the sweeps.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...torch_module.support.newton_adjoint import _newton_size
from ...torch_module.support.newton_scan import _NEWTON, newton_scan
from .fused_recurrence import (
    _one_by_one,
    _Recurrence,
    _recurrence_after,
    _recurrence_empty,
    _recurrence_operators,
    _recurrence_spans,
    _recurrence_walked,
    _Walk,
    _walks,
)
from .launching import _on_device

NEWTON_PIECES = 8  # as few are walked in one: a few sweeps over as many would take as long


def _newton_found(walk: _Walk, starts: Sequence[Tensor]) -> list[Tensor]:
    """[B, T + 1, lanes] of every state; `_NEWTON` says how many sweeps it took, and what was stepped in one piece."""
    found, steps = _recurrence_empty(walk, starts), walk.steps(sum(walk.plan.moves))
    for x, start in zip(found, starts, strict=True):
        walk.begin(x, start)
    pieces = walk.pieces(steps)
    _NEWTON.update(iterations=0, pieces=0, stepped=0)
    if pieces[1] < walk.shape[1] and pieces[0] >= NEWTON_PIECES and _newton_shot(walk, found, starts, pieces, steps):
        return found
    _NEWTON["stepped"] = walk.shape[1]
    with _on_device(found[0]):
        whole = walk.cut(walk.shape[1] + steps)
        table = walk.table(whole)
        _newton_swept(walk, found, _newton_heads(walk, starts, whole, table), whole, table, steps)
    return found


def _newton_heads(
    walk: _Walk, starts: Sequence[Tensor], pieces: tuple[int, int], table: Tensor | None
) -> list[Tensor]:
    """[B, pieces, lanes] where each piece begins: at its sequence's start."""
    flat = [s.reshape(len(s), walk.width()).float() for s in starts]
    if table is None:
        return [s[:, None].repeat(1, pieces[0], 1) for s in flat]
    return [s.index_select(0, table[:, 4])[None] for s in flat]


def _newton_shot(
    walk: _Walk, found: Sequence[Tensor], starts: Sequence[Tensor], pieces: tuple[int, int], steps: int
) -> bool:
    """Sweeps until every piece begins where the one before it ends; False where they do not get there fast."""
    before = math.inf
    with _on_device(found[0]):
        table = walk.table(pieces)
    heads = _newton_heads(walk, starts, pieces, table)
    for sweep in range(1, 9):
        ends = _newton_swept(walk, found, heads, pieces, table, steps)
        _NEWTON["iterations"] = sweep
        wanted = [_newton_wanted(end, head, table) for head, end in zip(heads, ends, strict=True)]
        gaps = [w - h[:, 1:] for w, h in zip(wanted, heads, strict=True)]
        gap = _newton_size(gaps, ends) if table is None else max(map(_newton_worst, gaps, ends, [table] * len(gaps)))
        if gap <= 1e-6:
            _NEWTON["pieces"] = pieces[0]
            return True
        if sweep > 2 and not gap < 0.1 * before:
            return False
        before = gap
        for head, start in zip(heads, wanted, strict=True):
            head[:, 1:] = start
    return False


def _newton_wanted(end: Tensor, head: Tensor, table: Tensor | None) -> Tensor:
    """Where all pieces but the first should begin: the first one of a packed sequence where it does."""
    if table is None:
        return end[:, :-1]
    first = table[1:, 3] == torch.arange(1, len(table), device=table.device)
    return torch.where(first[:, None], head[:, 1:], end[:, :-1])


def _newton_worst(gap: Tensor, end: Tensor, table: Tensor) -> float:
    """The largest gap, relative to the largest end in the same packed sequence."""
    sizes = torch.where(table[:, 1] > table[:, 0], end[0].abs().amax(1), 0)
    number = table[:, 4].long()
    scale = sizes.new_zeros(len(table)).scatter_reduce(0, number, sizes, "amax")[number[1:]]
    worst = float((gap[0].abs().amax(1) / scale.clamp(min=torch.finfo(scale.dtype).tiny)).max())
    return worst if math.isfinite(worst) else math.inf


def _newton_swept(
    walk: _Walk, found: Sequence[Tensor], heads: Sequence[Tensor], pieces: tuple[int, int], table: Tensor | None, steps: int
) -> list[Tensor]:
    """One walk through all pieces from their heads: what leaves each."""
    ends = [torch.empty_like(h) for h in heads]
    with _on_device(found[0]):
        walk.launch(walk.plan.states, pieces, table, [*(walk.rows(x) for x in found), *heads, *ends], steps)
    return ends


def fused_newton(plan: _Recurrence) -> Callable[..., list[Tensor]]:
    """A function with the arguments of `newton_scan`, the numbers that its kernels take, and the `ends` of packed sequences,
    each of which has starts of its own. float64 and the CPU are left to PyTorch."""
    walk = _recurrence_operators(plan, _newton_found)

    def run(
        step: Any, starts: Sequence[Tensor], operands: Sequence[Tensor], time: int, *, reverse: bool = False,
        rates: Any = None, counts: tuple[int, ...] = (), numbers: tuple[float, ...] = (), ends: Tensor | None = None,
    ) -> list[Tensor]:  # fmt: skip
        if ends is not None:
            starts = [s.expand(len(ends) - 1, *s.shape[1:]) for s in starts]
        if not time or not _walks([*starts, *operands]):
            if ends is None:
                return newton_scan(step, starts, operands, time, reverse=reverse, rates=rates)
            return _one_by_one(ends, operands, lambda n, given, length: newton_scan(
                step, [s[n : n + 1] for s in starts], given, length, reverse=reverse, rates=rates))  # fmt: skip
        shape = torch.broadcast_shapes(*(x.shape for x in (*(s[:1] if ends is not None else s for s in starts), *operands)))
        sizes, spans = [shape[0], time, *shape[2:]], _recurrence_spans(ends)
        begin = [s.squeeze(1) for s in starts]
        found = _recurrence_walked(walk, operands, begin, sizes, (counts, numbers), reverse, spans)
        return _recurrence_after(found, reverse, spans)

    return run
