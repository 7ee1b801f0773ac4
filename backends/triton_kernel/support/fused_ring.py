"""All states of an affine recurrence over a ring other than (+, *), by kernels that were written for it."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...torch_module.support.ring_scan import ring_scan
from .fused_recurrence import (
    _one_by_one,
    _Recurrence,
    _recurrence_after,
    _recurrence_operators,
    _recurrence_spans,
    _recurrence_walked,
    _walks,
)


def fused_ring(plan: _Recurrence) -> Callable[..., Tensor]:
    """A function with the arguments of `ring_scan`, and the `ends` of packed sequences, each of which has a start of its
    own. float64 and the CPU are left to PyTorch."""
    walk = _recurrence_operators(plan)

    def run(
        a: Tensor, b: Tensor, start: Tensor, *, ring: str, reverse: bool = False, ends: Tensor | None = None
    ) -> Tensor:
        if ends is not None:
            start = start.expand(len(ends) - 1, *start.shape[1:])
        if not _walks([a, b, start]):
            if ends is None:
                return ring_scan(a, b, start, ring=ring, reverse=reverse)
            return _one_by_one(ends, [a, b], lambda n, x, length: [
                ring_scan(x[0], x[1], start[n : n + 1], ring=ring, reverse=reverse)])[0]  # fmt: skip
        sizes, spans = list(torch.broadcast_shapes(a.shape, b.shape, start[:1].unsqueeze(1).shape)), _recurrence_spans(ends)
        found = _recurrence_walked(walk, [a, b], [start], sizes, ((), ()), reverse, spans)
        return _recurrence_after(found, reverse, spans)[0]

    return run
