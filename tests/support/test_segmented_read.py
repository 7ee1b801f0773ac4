"""Reads of a state whose decay varies along rows and columns, against a loop: decays whole, as factors, constant."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from backends.torch_module.support import segmented_read as module
from backends.torch_module.support.segmented_read import segmented_read

from .loops import normal, relative

F64 = torch.float64
K, V = 3, 4
# shapes of the decay and of `times` behind the batch: [T, H, K, V], T None where it is the length
FACTORS = {
    "whole": ((None, 2, K, V), None),
    "mamba": ((None, 2, 1, V), (1, 2, K, V)),
    "rows and columns": ((None, 2, K, 1), (None, 1, 1, V)),
    "constant": ((1, 2, K, V), None),
    "of all heads": ((None, 1, K, 1), (1, 1, 1, V)),
}


def loop(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, times: Tensor, start: Tensor, log: bool, strict: bool
) -> tuple[Tensor, Tensor]:
    a = decay * times
    a = (a.exp() if log else a).expand(*q.shape[:3], K, V)
    state, out = start, []
    for t in range(q.shape[1]):
        before = state
        state = a[:, t] * state + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
        out.append((q[:, t].unsqueeze(-1) * (before if strict else state)).sum(-2))
    return torch.stack(out, 1) if out else v, state


def drawn(kind: str, time: int, log: bool, dtype: torch.dtype = F64) -> list[Tensor]:
    def factor(shape: tuple[int | None, ...] | None, negative: bool) -> Tensor:
        if shape is None:
            return torch.ones(1, 1, 1, 1, 1, dtype=dtype)
        size = (2, *(time if n is None else n for n in shape))
        if not log:
            return torch.where(torch.rand(size) < 0.15, 0, 0.8 * normal(*size, dtype=dtype))
        sizes = torch.tensor([0.0, 1e-6, 1e-3, 0.1, 1.0, 20.0], dtype=dtype)
        return sizes[torch.randint(len(sizes), size)] * (-1 if negative else 1)

    decay, times = FACTORS[kind]
    q, k, v = normal(2, time, 2, K, dtype=dtype), normal(2, time, 2, K, dtype=dtype), normal(2, time, 2, V, dtype=dtype)
    return [q, k, v, factor(decay, True), factor(times, False), normal(2, 2, K, V, dtype=dtype)]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("time", [0, 1, 7, 19])
@pytest.mark.parametrize("kind", FACTORS)
def test_values_and_gradients(kind: str, time: int, log: bool, strict: bool) -> None:
    given = [x.requires_grad_() for x in drawn(kind, time, log)]

    def ours(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, times: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        factor = None if FACTORS[kind][1] is None else times
        return segmented_read(q, k, v, decay, start, log=log, strict=strict, size=8, times=factor)

    found, wanted = ours(*given), loop(*given, log, strict)
    assert max(relative(a, b) for a, b in zip(found, wanted, strict=True)) < 1e-14
    weights = [torch.randn_like(x) for x in wanted]
    grads = [
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(out, weights, strict=True)), given, allow_unused=True)
        for out in (found, wanted)
    ]
    for a, b in zip(*grads, strict=True):
        none = b is None or a is None
        assert none and (b is None or not b.any() or FACTORS[kind][1] is None) or not none and relative(a, b) < 1e-13


def test_second_derivatives_and_maps() -> None:
    given = [x.requires_grad_() for x in drawn("mamba", 5, True)]

    def ours(*x: Tensor) -> Tensor:
        return segmented_read(*x[:4], x[5], size=2, times=x[4])[0]

    assert torch.autograd.gradgradcheck(ours, given, fast_mode=True)
    stacked = [torch.stack([x.detach(), 0.5 * x.detach()]) for x in given]
    mapped = torch.func.vmap(ours)(*stacked)
    assert relative(mapped, torch.stack([ours(*(x[n] for x in stacked)) for n in range(2)])) < 1e-14
    compiled = torch.compile(ours, fullgraph=True, backend="eager")
    assert relative(compiled(*given), ours(*given)) < 1e-14


def test_the_product_of_factors_is_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor as long as time has an entry for each entry of the state."""
    sizes: list[int] = []
    taken = module._segmented_read_decay

    def noted(x: Tensor, y: Tensor | None, part: slice, log: bool, out: Tensor) -> Tensor:
        sizes.extend(t.numel() for t in (x, out) if t is not None)
        return taken(x, y, part, log, out)

    monkeypatch.setattr(module, "_segmented_read_decay", noted)
    q, k, v, decay, times, start = drawn("mamba", 64, True)
    segmented_read(q, k, v, decay, start, size=8, times=times)
    assert max(sizes) == max(8 * math.prod(start.shape), decay.numel()) < 64 * math.prod(start.shape)
