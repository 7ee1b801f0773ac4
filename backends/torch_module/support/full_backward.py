"""Gradients outside autocast, as the forward pass is."""

from collections.abc import Callable
from typing import Any

import torch


def full_backward(backward: Callable[..., Any]) -> Callable[..., Any]:
    """What a function of autograd sends back is computed in the types that it has kept, wherever it is asked for: within
    autocast, products would be rounded to 16 bits, and fail beside what is not."""

    def run(ctx: Any, *grads: Any) -> Any:
        kind = next((g.device.type for g in grads if g is not None), "cpu")
        if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
            return backward(ctx, *grads)
        with torch.autocast(kind, enabled=False):
            return backward(ctx, *grads)

    return run
