"""The gradient of a nonlinear recurrence: its adjoint is affine, whatever the step is, with the slopes at the solution."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .low_rank_scan import _low_rank_step, low_rank_scan
from .matrix_scan import matrix_scan
from .newton_columns import _newton_full, _newton_gathered, _newton_matrix
from .newton_rates import _newton_back, _newton_block, _newton_blocks, _newton_shifted


def _newton_size(x: Sequence[Tensor], states: Sequence[Tensor]) -> float:
    """The largest entry, relative to the largest end of the same state in the same sequence."""
    worst = 0.0
    for part, state in zip(x, states, strict=True):
        if part.numel():
            scale = state.abs().flatten(1).amax(1).clamp(min=torch.finfo(state.dtype).tiny)
            size = float((part.abs().flatten(1).amax(1) / scale).max())
            worst = max(worst, size) if math.isfinite(size) else math.inf
    return worst


def _newton_sent(
    step: Callable[..., Any], entering: Sequence[Tensor], operands: Sequence[Tensor], sent: Sequence[Tensor]
) -> list[Tensor]:
    """What a step sends back to the states before it."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in entering]
        after, _ = step(leaves, operands, False)
        return list(torch.autograd.grad(after, leaves, sent, allow_unused=True, materialize_grads=True))


def _newton_back_swept(
    step: Callable[..., Any], given: Sequence[Tensor], states: Sequence[Tensor], grads: Sequence[Tensor]
) -> list[Tensor] | None:
    """l[t] = grad[t] + J[t+1]^T l[t+1] without a matrix: pieces of 64 steps side by side, each from what the one after it
    has sent, until that stays. None where it takes long and matrices are small enough to be better."""
    time, size = states[0].shape[1], 64
    count = time // size
    found: list[list[Tensor]] = []
    tolerance = 1e-12 if states[0].dtype == torch.float64 else 1e-6
    entering, operands = _newton_block(given, states, 0, time)
    back, rest = [torch.zeros_like(g[:, :1]) for g in grads], []
    for t in reversed(range(count * size, time)):
        rest.append([g[:, t : t + 1] + b for g, b in zip(grads, back, strict=True)])
        at = [x[:, t : t + 1] if x.shape[1] == time else x for x in operands]
        back = _newton_sent(step, [h[:, t : t + 1] for h in entering], at, rest[-1])
    before, given_at, own = (
        [x[:, : count * size].unflatten(1, (count, size)).unbind(2) if x.shape[1] == time else (x,) * size for x in some]
        for some in (entering, operands, grads)
    )
    arriving = [torch.cat([b.new_zeros(b.shape[0], count - 1, *b.shape[2:]), b], 1) for b in back]
    changes: list[float] = []
    for _ in range(count):
        back, found = arriving, []
        for i in reversed(range(size)):
            found.append([g[i] + b for g, b in zip(own, back, strict=True)])
            back = _newton_sent(step, [h[i] for h in before], [x[i] for x in given_at], found[-1])
        new = [torch.cat([b[:, 1:], a[:, -1:]], 1) for a, b in zip(arriving, back, strict=True)]
        changes.append(_newton_size([a - b for a, b in zip(arriving, new, strict=True)], found[0]))
        arriving = new
        if changes[-1] <= tolerance:
            break
        if _newton_is_narrow(states) and len(changes) > 2 and not changes[-1] <= 0.1 * changes[-2]:
            return None
    wholes = [torch.stack(rows[::-1], 2).flatten(1, 2) for rows in zip(*found, strict=True)]
    ends = zip(*rest, strict=True) if rest else [()] * len(wholes)
    return [torch.cat([whole, *end[::-1]], 1) for whole, end in zip(wholes, ends, strict=True)]


def _newton_is_narrow(states: Sequence[Tensor], low_rank: bool = False) -> bool:
    """Are matrices over the entries of all states, of which products cost the cube, worth their while?"""
    return len(states) * states[0].shape[-1] <= (16 if low_rank else 64)


def _newton_back_mixing(
    step: Callable[..., Any], given: Sequence[Tensor], states: Sequence[Tensor], grads: Sequence[Tensor]
) -> list[Tensor]:
    """The same with matrices of slopes, those of a block of positions at a time, from the last block to the first."""
    count, shape = len(states), states[0].shape
    lead, width = math.prod(shape[2:-1]), count * shape[-1]
    value = torch.cat([g.expand(shape) for g in grads], -1).view(*shape[:2], lead, width, 1)
    following = value.new_zeros(value[:, 0].shape)  # J^T l of the position after the block
    parts = []
    for a, b in reversed(_newton_blocks(states, 2**22 // (count * width))):
        _, slopes = step(*_newton_block(given, states, a, b), True)
        back = _newton_matrix(_newton_full(slopes), states[0][:, a:b]).view(shape[0], b - a, lead, width, width).mT
        moved = torch.cat([back[:, 1:], torch.zeros_like(back[:, :1])], 1)
        own = value[:, a:b].clone()
        own[:, -1] += following
        parts.append(matrix_scan(moved, own, reverse=True))
        following = back[:, 0] @ parts[-1][:, 0]
    whole = torch.cat(parts[::-1], 1).squeeze(-1).unflatten(-1, (count, shape[-1]))
    return [x.reshape(shape) for x in whole.unbind(-2)]


def _newton_back_low_rank(
    step: Callable[..., Any], given: Sequence[Tensor], states: Sequence[Tensor], grads: Sequence[Tensor]
) -> list[Tensor]:
    """The same with diagonals, columns and rows, whose transposes exchange columns and rows."""
    count, shape = len(states), states[0].shape
    value = torch.cat([g.expand(shape) for g in grads], -1).movedim(1, -2)  # [B, .., T, S N]
    following = torch.zeros_like(value[..., 0, :])  # J^T l of the position after the block
    parts = []
    for a, b in reversed(_newton_blocks(states, 2**20)):
        entering, operands = _newton_block(given, states, a, b)
        gathered = _newton_gathered([step(entering, operands, True)[1]], entering[0].shape)
        d, u, w = (x.squeeze(n).movedim(1, n) for x, n in zip(gathered, (-4, -3, -3), strict=True))
        d = d.transpose(-3, -2)
        own = value[..., a:b, :].flip(-2)
        own[..., 0, :] += following
        shifted = [torch.cat([torch.zeros_like(x.narrow(n, 0, 1)), x.narrow(n, 1, b - a - 1).flip(n)], n)
                   for x, n in ((d, d.dim() - 4), (w, w.dim() - 3), (u, u.dim() - 3))]  # fmt: skip
        parts.append(low_rank_scan(shifted[0], shifted[1], shifted[2], own).flip(-2))
        following = _low_rank_step(d[..., 0, :, :, :], w[..., 0, :, :], u[..., 0, :, :], parts[-1][..., 0, :])
    whole = torch.cat(parts[::-1], -2).movedim(-2, 1)
    return list(whole.unflatten(-1, (count, shape[-1])).unbind(-2))


def newton_adjoint(
    step: Callable[..., Any],
    given: Sequence[Tensor],
    states: Sequence[Tensor],
    grads: Sequence[Tensor],
    wanted: list[int],
    mixing: bool,
    low_rank: bool,
) -> list[Tensor]:
    """Gradients of the given tensors: l[t] = grad[t] + J[t+1]^T l[t+1], then the step's own at (h[t-1], x[t]).

    Slopes and gradients are taken block by block of positions, so that what is in between stays in a CPU's cache.
    """
    count, time = len(states), states[0].shape[1]
    blocks = _newton_blocks(states, 2**16)
    if low_rank and not _newton_is_narrow(states, low_rank):
        back = _newton_back_low_rank(step, given, states, grads)
    elif mixing and states[0][..., 0].numel() * (count * states[0].shape[-1]) ** 3 > 2**25:  # what matrices would multiply
        back = _newton_back_swept(step, given, states, grads) or _newton_back_mixing(step, given, states, grads)
    elif mixing:
        back = _newton_back_mixing(step, given, states, grads)
    else:
        later = [[torch.empty_like(x) for _ in states] for x in states]
        for a, b in blocks:
            _newton_shifted(later, step(*_newton_block(given, states, a, b), True)[1], a, b)
        back = _newton_back(later, grads)
    wholes = {k: torch.empty_like(given[k]) for k in wanted if given[k].shape[1] == time}
    parts: dict[int, list[Tensor]] = {k: [] for k in wanted if k not in wholes}
    for a, b in blocks:
        entering, operands = _newton_block(given, states, a, b)
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_(k < count or k in wanted) for k, x in enumerate([*entering, *operands])]
            after, _ = step(leaves[:count], leaves[count:], False)
            asked, sent = [leaves[k] for k in wanted], [x[:, a:b] for x in back]
            found = torch.autograd.grad(after, asked, sent, allow_unused=True, materialize_grads=True)
        for k, part in zip(wanted, found, strict=True):
            if k in wholes:
                wholes[k][:, a:b] = part
            elif k >= count or not a:  # a start is only read by the first step
                parts[k].append(part[:, :1] if k < count else part)
    return [wholes[k] if k in wholes else torch.stack(parts[k]).sum(0) for k in wanted]
