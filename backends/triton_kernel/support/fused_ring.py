"""All states of an affine recurrence over a ring other than (+, *), by kernels that were written for it."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...torch_module.support.ring_scan import ring_scan
from .fused_recurrence import _Recurrence, _recurrence_operators, _recurrence_walked, _walks


def fused_ring(plan: _Recurrence) -> Callable[..., Tensor]:
    """A function with the arguments of `ring_scan`. float64 and the CPU are left to PyTorch."""
    walk = _recurrence_operators(plan)

    def run(a: Tensor, b: Tensor, start: Tensor, *, ring: str, reverse: bool = False) -> Tensor:
        given = [a, b, start.unsqueeze(1)]
        if not _walks(given):
            return ring_scan(a, b, start, ring=ring, reverse=reverse)
        sizes = list(torch.broadcast_shapes(*(x.shape for x in given)))
        found = _recurrence_walked(walk, [a, b], [start], sizes, ((), ()), reverse)[0]
        return found[:, :-1] if reverse else found[:, 1:]

    return run
