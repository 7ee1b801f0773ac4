"""The gradient of steps that is to be differentiated again: by autograd, through the steps themselves."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradient_again(
    run: Callable[[Sequence[Tensor]], Sequence[Tensor]], given: Sequence[Tensor], wanted: Sequence[int], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """What is sent back from the results of `run` to those of its operands at the places `wanted`."""
    given = [x.view_as(x) for x in given]  # none of them made of another
    sent = [(y, g) for y, g in zip(run(given), grads, strict=True) if y.requires_grad]
    if not sent:
        return [None] * len(wanted)
    out, sides = zip(*sent, strict=True)
    return list(torch.autograd.grad(out, [given[k] for k in wanted], sides, create_graph=True, allow_unused=True))
