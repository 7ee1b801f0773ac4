"""The gradient of a nonlinear recurrence whose entries do not depend on one another, from the derivatives of its step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .affine_scan import affine_scan
from .matrix_scan import matrix_scan

# [i][k]: d after[i] / d that, None where it is 0. By all states, and by operands as wide as they; by the other ones, given
# these; and which operands are which.
_NewtonRates = tuple[Callable[..., Any], Callable[..., Any], list[int], list[int]]


def _newton_blocks(states: Sequence[Tensor], entries: int) -> list[tuple[int, int]]:
    """All positions, as spans with about so many entries of a state: on a CPU, what is computed of them stays in the cache."""
    entries *= 1 if states[0].device.type == "cpu" else 2**8
    time, length = states[0].shape[1], max(1, entries // max(1, states[0][:, 0].numel()))
    return [(a, min(a + length, time)) for a in range(0, time, length)]


def _newton_block(
    given: Sequence[Tensor], states: Sequence[Tensor], a: int, b: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The states before the positions a .. b, and the operands there."""
    count, time = len(states), states[0].shape[1]
    operands = [x[:, a:b] if x.shape[1] == time else x for x in given[count:]]
    if a:
        return [h[:, a - 1 : b - 1] for h in states], operands
    return [
        torch.cat([x.expand_as(h[:, :1]), h[:, : b - 1]], 1) for x, h in zip(given[:count], states, strict=True)
    ], operands


def _newton_shifted(later: list[list[Tensor]], slopes: Sequence[Sequence[Tensor | None]], a: int, b: int) -> None:
    """Write the slopes of the positions a .. b, each one position earlier."""
    for wholes, row in zip(later, slopes, strict=True):
        for whole, slope in zip(wholes, row, strict=True):
            whole[:, max(a - 1, 0) : b - 1] = _newton_or_zero(slope, whole[:, a:b])[:, int(a == 0) :]


def _newton_back(later: list[list[Tensor]], grads: Sequence[Tensor]) -> list[Tensor]:
    """l[t] = grad[t] + J[t+1]^T l[t+1], entry by entry; later[i][k] is d h[i][t+1] / d h[k][t]."""
    for row in later:
        for whole in row:
            whole[:, -1] = 0
    if len(grads) == 1:
        return [affine_scan(later[0][0], grads[0], reverse=True)]
    shape = later[0][0].shape
    matrix = torch.stack([torch.stack(column, -1) for column in zip(*later, strict=True)], -2)
    value = torch.stack([g.expand(shape) for g in grads], -1).view(*shape[:2], -1, len(grads), 1)
    found = matrix_scan(matrix.view(*shape[:2], -1, *matrix.shape[-2:]), value, reverse=True)
    return list(found.view(*shape, len(grads)).unbind(-1))


def newton_rates(
    rates: _NewtonRates,
    given: Sequence[Tensor],
    states: Sequence[Tensor],
    grads: Sequence[Tensor],
    wanted: Sequence[int],
) -> list[Tensor]:
    """Gradients of the given tensors, starts and operands: l[t] = grad[t] + J[t+1]^T l[t+1], times the step's derivatives.

    Those by wide operands are kept where their gradients will be: nothing of a step is computed twice for them. The others
    are products with them as a rule, to be summed over what an operand does not vary along.
    """
    by_wide, by_others, *places = rates
    (wide, others), count, time = places, len(states), states[0].shape[1]
    own, blocks = range(count), _newton_blocks(states, 2**16)
    later = [[torch.empty_like(states[0]) for _ in own] for _ in own]
    kept = [[torch.empty_like(states[0]) for _ in wide] for _ in own]
    first: list[list[Tensor | None]] = []
    for a, b in blocks:
        slopes, found = by_wide(*_newton_block(given, states, a, b))
        first = first or [[None if s is None else s[:, :1] for s in row] for row in slopes]
        _newton_shifted(later, slopes, a, b)
        for wholes, row in zip(kept, found, strict=True):
            for whole, rate in zip(wholes, row, strict=True):
                whole[:, a:b] = _newton_or_zero(rate, whole[:, a:b])
    back = _newton_back(later, grads)
    parts: dict[int, list[Tensor]] = {n: [] for n in others if count + n in wanted}
    for a, b in blocks:
        sent = [x[:, a:b] for x in back]
        here = [[x[:, a:b] for x in row] for row in kept]
        if parts:
            entering, operands = _newton_block(given, states, a, b)
            for n, column in zip(others, zip(*by_others(entering, operands, here), strict=True), strict=True):
                if n in parts:
                    each = [x * rate for x, rate in zip(sent, column, strict=True) if rate is not None]
                    total = sum(each[1:], each[0]) if each else operands[n].new_zeros(())
                    parts[n].append(total.expand_as(sent[0]).sum_to_size(operands[n].shape))
        for into, *rest in zip(*here, strict=True):
            into.mul_(sent[0])
            for rate, x in zip(rest, sent[1:], strict=True):
                into.addcmul_(rate, x)
    gradients = dict(zip((count + n for n in wide), kept[0], strict=True))
    for n, each in parts.items():
        gradients[count + n] = torch.cat(each, 1) if given[count + n].shape[1] == time else torch.stack(each).sum(0)
    for k in own:
        each = [x[:, :1] * rate for x, row in zip(back, first, strict=True) if (rate := row[k]) is not None]
        gradients[k] = sum(each[1:], each[0]) if each else torch.zeros_like(states[k][:, :1])
    return [gradients.get(k, torch.zeros_like(given[k])) for k in wanted]


def _newton_or_zero(rate: Tensor | None, like: Tensor) -> Tensor:
    """A derivative over all positions: it may vary along none of them."""
    rate = like.new_zeros(()) if rate is None else rate
    return rate.expand_as(like) if rate.shape != like.shape else rate
