"""A loop over positions whose gradient is a loop of its own, in place of what autograd would record of every step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .gradient_again import gradient_again

# The operands, and whether to keep what the adjoint reads -> results, then what is kept and is no result.
_Steps = Callable[..., tuple[Tensor, ...]]


class _Stepped(torch.autograd.Function):
    """Keeps the operands and the states of all steps."""

    @staticmethod
    def forward(steps: _Steps, adjoint: _Steps, count: int, kept: tuple[int, ...], *given: Tensor) -> tuple[Tensor, ...]:
        return tuple(y.view_as(y) if any(y is x for x in given) else y for y in steps(*given, True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.steps, ctx.adjoint, ctx.count, kept, *given = inputs
        ctx.mark_non_differentiable(*output[ctx.count :])
        ctx.given = len(given)
        ctx.save_for_backward(*given, *(output[k] for k in kept))

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # asked for once: a checkpoint recomputes them, once
        given, kept = saved[: ctx.given], saved[ctx.given :]
        wanted = [k for k, needs in enumerate(ctx.needs_input_grad[4:]) if needs]
        found: Sequence[Tensor | None]
        if torch.is_grad_enabled():  # to be differentiated again: through the steps themselves
            found = gradient_again(lambda x: ctx.steps(*x, False), given, wanted, grads[: ctx.count])
        else:
            sides = ctx.adjoint(*given, *kept, *grads[: ctx.count])
            found = [sides[k] for k in wanted]
        every: list[Tensor | None] = [None] * (4 + len(given))
        for k, value in zip(wanted, found, strict=True):
            every[4 + k] = value
        return tuple(every)


def stepped(
    steps: _Steps, adjoint: _Steps, given: Sequence[Tensor], count: int, kept: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """The first `count` results of a loop. `kept` are the places, among all that it gives, of what `adjoint` reads: it takes
    the operands, what is kept, and a gradient for each result, and gives one for each operand.

    Where tracers or the transforms of torch.func are at work, of which what the steps close over may be a level's own, the
    steps are differentiated as they are.
    """
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if traced or not torch.is_grad_enabled() or not any(x.requires_grad for x in given):
        return steps(*given, False)[:count]
    return _Stepped.apply(steps, adjoint, count, kept, *given)[:count]  # type: ignore[no-any-return,no-untyped-call]
