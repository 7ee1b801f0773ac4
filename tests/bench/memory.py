"""What `timing.peak_memory` runs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import seqdsl
from tests.bench import baselines


def gla_inputs(length: int) -> list[Tensor]:
    """q, k, v and log decays, B 1, H 4, K and V 64."""
    torch.set_num_threads(2)
    q, k, v = (torch.randn(1, length, 4, 64) for _ in range(3))
    return [q, k, v, -torch.rand(1, length, 4, 64)]


def gla_forward(length: int) -> Callable[[], object]:
    """gla in chunks, without gradients."""
    module = seqdsl.load("gla", "gla").module("chunkwise")
    inputs = gla_inputs(length)

    def run() -> object:
        with torch.no_grad():
            return module(*inputs)

    return run


def differentiated(call: Callable[..., Tensor], length: int) -> Callable[[], object]:
    """Forward and backward, for the gradients of all inputs."""
    inputs = [x.requires_grad_() for x in gla_inputs(length)]
    return lambda: call(*inputs).sum().backward()


def gla_both(length: int) -> Callable[[], object]:
    """gla in chunks, forward and backward."""
    return differentiated(seqdsl.load("gla", "gla").module("chunkwise"), length)


def gla_both_by_autograd(length: int) -> Callable[[], object]:
    """A plain chunk form under autograd."""
    return differentiated(baselines.chunked_gla, length)
