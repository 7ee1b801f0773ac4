"""Affine recurrences over other rings than (+, *): all chunks take a step together, and hand their ends on."""

from collections.abc import Callable

import torch
from torch import Tensor

Operation = Callable[[Tensor, Tensor], Tensor]


def _ring_scan_logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b)), whose gradient is 0 where both are -inf."""
    larger = torch.maximum(a, b).detach()
    larger = torch.where(larger.isinf(), 0, larger)
    total = (a - larger).exp() + (b - larger).exp()
    return torch.where(total > 0, larger + torch.where(total > 0, total, 1).log(), (a + b).detach())


_RING_SCAN_RINGS: dict[str, tuple[Operation, Operation, float, float]] = {
    "max_plus": (torch.maximum, torch.add, -torch.inf, 0.0),
    "min_plus": (torch.minimum, torch.add, torch.inf, 0.0),
    "logaddexp_plus": (_ring_scan_logaddexp, torch.add, -torch.inf, 0.0),
    "or_and": (torch.logical_or, torch.logical_and, False, True),
    "max_times": (torch.maximum, torch.mul, 0.0, 1.0),
}


def ring_scan(a: Tensor, b: Tensor, start: Tensor, *, ring: str, reverse: bool = False) -> Tensor:
    """h[t] = (a[t] mul h[t-1]) add b[t] along dim 1, with h[-1] = start; reversed, from the end.

    Shapes:  a, b [B, T, ...], start [B, ...], which broadcast -> h [B, T, ...], float32 for 16 bits
    """
    add, mul, zero, one = _RING_SCAN_RINGS[ring]
    if b.dtype != torch.bool:
        dtype = torch.float32
        for given in (a, b, start):
            dtype = torch.promote_types(dtype, given.dtype)
        a, b, start = a.to(dtype), b.to(dtype), start.to(dtype)
    shape = torch.broadcast_shapes(a.shape, b.shape, start.unsqueeze(1).shape)
    a, b, start = a.expand(shape), b.expand(shape), start.expand(shape[:1] + shape[2:])
    time, size = shape[1], 16 if shape[1] < 512 else 32
    if time == 0:
        return mul(a, b)
    if reverse:
        a, b = a.flip(1), b.flip(1)
    count = -(-time // size)
    missing = (shape[0], count * size - time, *shape[2:])
    a = torch.cat([a, a.new_full(missing, one)], 1).unflatten(1, (count, size))
    b = torch.cat([b, b.new_full(missing, zero)], 1).unflatten(1, (count, size))
    steps = list(zip(a.unbind(2), b.unbind(2), strict=True))
    entering = [start]
    if count > 1:
        whole, end = steps[0]
        for factor, value in steps[1:]:
            whole, end = mul(factor, whole), add(mul(factor, end), value)
        for factor, value in zip(whole.unbind(1), end.unbind(1), strict=True):
            entering.append(add(mul(factor, entering[-1]), value))
        entering.pop()
    state, found = torch.stack(entering, 1), []
    for factor, value in steps:
        state = add(mul(factor, state), value)
        found.append(state)
    h = torch.stack(found, 2).flatten(1, 2)[:, :time]
    return h.flip(1) if reverse else h
