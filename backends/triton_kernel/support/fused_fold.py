"""All prefix folds of a declared monoid, by kernels that were written for its `combine`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...torch_module.runtime import _tree_fold, _tree_scan
from .fused_recurrence import (
    _one_by_one,
    _Recurrence,
    _recurrence_after,
    _recurrence_operators,
    _recurrence_spans,
    _recurrence_walked,
    _walks,
)


def fused_fold(
    plan: _Recurrence, own: tuple[tuple[int, ...], ...] | None = None
) -> Callable[..., tuple[Tensor, ...]]:
    """A function of fields [B, T, lanes] and what combines two: folds of the positions up to each, or the `last` alone.

    The first element is the start, and the others are the steps. `own`: which of the last lanes each field has; where it
    has not all of them, its entries are the same along the others. float64 and the CPU are left to PyTorch. With the `ends`
    of packed sequences, [1, T, lanes], those are folded one by one.
    """
    walk = _recurrence_operators(plan._replace(own=True))
    places = own or ((),) * plan.held
    every = range(1 + max((k for some in places for k in some), default=-1))

    def run(
        fields: Sequence[Tensor], combine: Callable[..., tuple[Tensor, ...]], *, last: bool = False,
        counts: tuple[int, ...] = (), numbers: tuple[float, ...] = (), ends: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        if fields[0].shape[1] < 2 or not _walks(fields):
            if ends is not None and fields[0].shape[1]:
                return tuple(_one_by_one(ends, fields, lambda n, given, length: _tree_scan(tuple(given), combine, 1)))
            return (_tree_fold if last else _tree_scan)(tuple(fields), combine, 1)
        lacked = [[k - len(every) for k in reversed(every) if k not in some] for some in places]
        wide = [_fold_widened(x, dims) for x, dims in zip(fields, lacked, strict=True)]
        sizes = list(torch.broadcast_shapes(*(x.shape for x in wide)))
        if ends is None:
            sizes[1] -= 1
            operands, starts, spans = [x[:, 1:] for x in wide], [x[:, 0] for x in wide], None
        else:
            heads, spans = ends[:-1].long().clamp(max=sizes[1] - 1), _recurrence_spans(ends, 1)
            operands, starts = wide, [x[0].index_select(0, heads) for x in wide]
        found = _recurrence_walked(walk, operands, starts, sizes, (counts, numbers), False, spans)
        found = found if spans is None else _recurrence_after(found, False, spans)
        found = [_fold_narrowed(x, dims) for x, dims in zip(found, lacked, strict=True)]
        return tuple(x[:, -1] if last else x for x in found)

    return run


def _fold_widened(x: Tensor, dims: Sequence[int]) -> Tensor:
    """With a dimension of length 1 at each of these places, counted from the end, the last first."""
    for d in dims:
        x = x.unsqueeze(d)
    return x


def _fold_narrowed(x: Tensor, dims: Sequence[int]) -> Tensor:
    """The first entry along each of these dimensions."""
    for d in dims:
        x = x.narrow(d, 0, 1)
    return x.squeeze(list(dims)) if dims else x
