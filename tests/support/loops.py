"""The same definitions as literal loops over positions: what tests compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

F64 = torch.float64
LOG_DECAYS = (0.0, -1e-6, -1e-3, -0.1, -1.0, -20.0, -200.0)


def mixed_log_decays(*shape: int, reset: bool = False) -> Tensor:
    """Float64 log decays of every size side by side, with resets (log 0) on request."""
    values = torch.tensor([*LOG_DECAYS, *([float("-inf")] if reset else [])], dtype=torch.float64)
    return values[torch.randint(len(values), shape)]


def normal(*shape: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def decays(log: bool, *shape: int) -> Tensor:
    """Log decays of every size, or factors of either sign with zeros among them."""
    if log:
        return mixed_log_decays(*shape, reset=True)
    return torch.where(torch.rand(*shape) < 0.15, 0, 0.7 * normal(*shape))


def scan_loop(a: Tensor, b: Tensor, start: Tensor | None, *, reverse: bool = False) -> Tensor:
    a = a.expand(b.shape)
    state = torch.zeros_like(b[:, 0]) if start is None else start
    states = {}
    for t in range(b.shape[1])[:: -1 if reverse else 1]:
        state = a[:, t] * state + b[:, t]
        states[t] = state
    return torch.stack([states[t] for t in range(b.shape[1])], 1)


def between(a: Tensor, j: int, i: int) -> Tensor:
    """The product of a[..., l, :] over j < l <= i."""
    product = torch.ones_like(a[..., 0, :])
    for l in range(j + 1, i + 1):
        product = product * a[..., l, :]
    return product


def gram_loop(q: Tensor, k: Tensor, a: Tensor, *, strict: bool = False) -> Tensor:
    size = q.shape[-2]
    zero = torch.zeros_like(q[..., 0, :]).sum(-1)
    rows = [
        [
            (q[..., i, :] * k[..., j, :] * between(a, j, i - strict)).sum(-1) if j <= i - strict else zero
            for j in range(size)
        ]
        for i in range(size)
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def apply_loop(weights: Tensor, v: Tensor, a: Tensor) -> Tensor:
    size = v.shape[-2]
    rows = [
        sum((weights[..., i, j, None] * between(a, j, i) * v[..., j, :] for j in range(i + 1)), torch.zeros(()))
        for i in range(size)
    ]
    return torch.stack(rows, -2)


def attention_loop(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor | None, start: Tensor | None, *, strict: bool = False,
    columns: bool = False,
) -> tuple[Tensor, Tensor]:
    batch, time, heads, width = k.shape
    state = v.new_zeros(batch, heads, width, v.shape[-1]) if start is None else start
    outputs = []
    for t in range(time):
        before = state
        if a is not None:
            state = (a[:, t, :, None, :] if columns else a[:, t, :, :, None]) * state
        state = state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, :, None] * (before if strict else state)).sum(-2))
    return torch.stack(outputs, 1) if outputs else v * 0, state


def conv_loop(x: Tensor, w: Tensor) -> Tensor:
    rows = []
    for t in range(x.shape[1]):
        row = torch.zeros_like(x[:, 0] * w[0])
        for j in range(min(t + 1, w.shape[0])):
            row = row + w[j] * x[:, t - j]
        rows.append(row)
    return torch.stack(rows, 1)


def relative(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, relative to that of the expected; below 1e-30 nothing is left in float32."""
    if expected.numel() == 0:
        return 0.0
    size = expected.norm().item()
    return (found.to(expected.dtype) - expected).norm().item() / (size if size > 1e-30 else 1.0)


def values_and_gradients(
    run: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor | None], dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs in `dtype`, and the gradients of a fixed random functional of all of them."""
    given = [x if x is None else x.detach().to(dtype).requires_grad_() for x in inputs]
    out = run(*given)
    outputs = [out] if isinstance(out, Tensor) else list(out)
    draw = torch.Generator().manual_seed(7)
    loss = sum((y * torch.randn(y.shape, dtype=torch.float64, generator=draw).to(y.dtype)).sum() for y in outputs)
    assert isinstance(loss, Tensor)
    real = loss.real if loss.is_complex() else loss
    wanted = [x for x in given if x is not None]
    if not real.requires_grad:
        return [y.detach() for y in outputs], [torch.zeros_like(x) for x in wanted]
    gradients = torch.autograd.grad(real, wanted, allow_unused=True, materialize_grads=True)
    return [y.detach() for y in outputs], list(gradients)


def check_against(
    fast: Callable[..., Tensor | tuple[Tensor, ...]],
    slow: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    *,
    tolerance: float = 1e-11,
) -> None:
    """Values and all gradients of `fast` are those of `slow`, in the inputs' own precision."""
    dtype = next(x.dtype for x in inputs if x is not None)
    found, expected = values_and_gradients(fast, inputs, dtype), values_and_gradients(slow, inputs, dtype)
    for kind, ours, theirs in zip(("value", "gradient"), found, expected, strict=True):
        for n, (x, y) in enumerate(zip(ours, theirs, strict=True)):
            assert torch.isfinite(x).all(), f"{kind} {n} is not finite"
            assert relative(x, y) < tolerance, f"{kind} {n}: {relative(x, y):.2e}"
