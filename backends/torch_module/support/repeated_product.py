"""Rows times the powers of a matrix, one product after the other."""

from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward


class _RepeatedProduct(torch.autograd.Function):
    """[M, W, N] and [M, N, N]. Backwards the same with the matrix transposed; what all products do to its gradient is one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, a: Tensor, count: int) -> Tensor:
        found = [x]
        for _ in range(count - 1):
            found.append(found[-1] @ a)
        return torch.cat(found, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.count = inputs[2]
        ctx.save_for_backward(inputs[1], output)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, found = ctx.saved_tensors
        *earlier, last = grads[0].chunk(ctx.count, 1)
        total, back = [last], a.mH.contiguous()
        for grad in reversed(earlier):
            total.append(torch.baddbmm(grad, total[-1], back))
        after = torch.cat(total[-2::-1], 1)
        return total[-1], found[:, : after.shape[1]].mH @ after, None


def repeated_product(x: Tensor, a: Tensor, count: int) -> Tensor:
    """x, x A, .., x A^(count - 1), one below the other. Shapes: x [.., W, N], a [.., N, N] -> [.., count W, N]."""
    lanes = torch.broadcast_shapes(x.shape[:-2], a.shape[:-2])
    x = x.expand(*lanes, *x.shape[-2:])
    if count < 2 or x.numel() == 0:
        return x.repeat(*(1 for _ in lanes), count, 1)
    one = a.shape[:-2].numel() == 1  # then the rows of all lanes are rows of one
    rows, matrix = (x.reshape(1, -1, x.shape[-1]), a.reshape(1, *a.shape[-2:])) if one else (
        x.reshape(-1, *x.shape[-2:]), a.expand(*lanes, *a.shape[-2:]).reshape(-1, *a.shape[-2:]))  # fmt: skip
    found: Tensor = _RepeatedProduct.apply(rows, matrix, count)  # type: ignore[no-untyped-call]
    if one:
        found = found.view(count, -1, *x.shape[-2:]).movedim(0, 1)
    return found.reshape(*lanes, count * x.shape[-2], x.shape[-1])
