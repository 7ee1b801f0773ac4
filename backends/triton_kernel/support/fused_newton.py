"""All states of a nonlinear recurrence whose entries do not depend on one another, by kernels written for its step.

A program keeps some entries in registers and steps them through time, as the equations say: where entries alone fill a
device nothing is faster, and there is nothing to converge. Else time is cut into pieces, which all begin at the start and
are walked side by side; then each at the end of the one before, until the starts stay to 1e-6 of the largest end: multiple
shooting, as in `newton_scan`, with copies for corrections. What a piece forgets of its start in its 128 steps or more, it
forgets in two or three sweeps. Where a third does not gain a factor of ten, the steps are taken one after another in one
piece, which is exact: corrections by slopes would read everything again for the time of a few sweeps.
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
    _Recurrence,
    _recurrence_empty,
    _recurrence_operators,
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
        walk.first(x)[:, 0] = start
    pieces = walk.pieces(steps)
    heads = [s.reshape(walk.shape[0], 1, walk.width()).float().repeat(1, pieces[0], 1) for s in starts]
    _NEWTON.update(iterations=0, pieces=0, stepped=0)
    if pieces[0] >= NEWTON_PIECES and _newton_shot(walk, found, heads, pieces, steps):
        return found
    _NEWTON["stepped"] = walk.shape[1]
    _newton_swept(walk, found, [h[:, :1].contiguous() for h in heads], (1, walk.shape[1] + steps), steps)
    return found


def _newton_shot(
    walk: _Walk, found: Sequence[Tensor], heads: Sequence[Tensor], pieces: tuple[int, int], steps: int
) -> bool:
    """Sweeps until every piece begins where the one before it ends; False where they do not get there fast."""
    before = math.inf
    for sweep in range(1, 9):
        ends = _newton_swept(walk, found, heads, pieces, steps)
        _NEWTON["iterations"] = sweep
        gap = _newton_size([e[:, :-1] - h[:, 1:] for e, h in zip(ends, heads, strict=True)], ends)
        if gap <= 1e-6:
            _NEWTON["pieces"] = pieces[0]
            return True
        if sweep > 2 and not gap < 0.1 * before:
            return False
        before = gap
        for head, end in zip(heads, ends, strict=True):
            head[:, 1:] = end[:, :-1]
    return False


def _newton_swept(
    walk: _Walk, found: Sequence[Tensor], heads: Sequence[Tensor], pieces: tuple[int, int], steps: int
) -> list[Tensor]:
    """One walk through all pieces from their heads: what leaves each."""
    ends = [torch.empty_like(h) for h in heads]
    with _on_device(found[0]):
        walk.launch(walk.plan.states, pieces, [*(walk.first(x) for x in found), *heads, *ends], steps)
    return ends


def fused_newton(plan: _Recurrence) -> Callable[..., list[Tensor]]:
    """A function with the arguments of `newton_scan`, and the numbers that its kernels take. float64 and the CPU are left
    to PyTorch."""
    walk = _recurrence_operators(plan, _newton_found)

    def run(
        step: Any, starts: Sequence[Tensor], operands: Sequence[Tensor], time: int, *, reverse: bool = False,
        counts: tuple[int, ...] = (), numbers: tuple[float, ...] = (),
    ) -> list[Tensor]:  # fmt: skip
        if not time or not _walks([*starts, *operands]):
            return newton_scan(step, starts, operands, time, reverse=reverse)
        shape = torch.broadcast_shapes(*(x.shape for x in (*starts, *operands)))
        sizes = [shape[0], time, *shape[2:]]
        begin = [s.squeeze(1) for s in starts]
        found = _recurrence_walked(walk, operands, begin, sizes, (counts, numbers), reverse)
        return [x[:, :-1] if reverse else x[:, 1:] for x in found]

    return run
