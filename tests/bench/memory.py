"""What `timing.peak_memory` runs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch

import seqdsl


def gla_forward(length: int) -> Callable[[], object]:
    """gla in chunks, B 1, H 4, K and V 64, without gradients."""
    torch.set_num_threads(2)
    module = seqdsl.load("gla", "gla").module("chunkwise")
    q, k, v = (torch.randn(1, length, 4, 64) for _ in range(3))
    g = -torch.rand(1, length, 4, 64)

    def run() -> object:
        with torch.no_grad():
            return module(q, k, v, g)

    return run
