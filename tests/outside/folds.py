"""Folds of declared monoids, position by position."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.outside.case import Case, Finals, Given, Outputs, loop


def since_the_flag(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.where(i.flag[:, t, None], 0, y) + i.x[:, t]
        return y, y

    return loop(i.x.shape[1], {"y": torch.zeros_like(i.x[:, 0])}, step)[0], {}


def mean_and_variance(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    rows = []
    for t in range(i.x.shape[1]):
        on = i.on[:, : t + 1, None].double()
        count = on.sum(1).clamp(min=1)
        mean = (on * i.x[:, : t + 1]).sum(1) / count
        rows.append(mean + (on * (i.x[:, : t + 1] - mean[:, None]) ** 2).sum(1) / count)
    return (i.x + torch.stack(rows, 1) if rows else i.x * 1,), {}


def turns(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y = torch.exp(1j * i.w[:, t]) / 2 * y + i.x[:, t]
        return y, (y, y.real)

    return loop(i.x.shape[1], {"y": torch.zeros_like(i.x[:, 0])}, step)[0], {}


def of_the_largest(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    at = [i.x[:, : t + 1].argmax(1, keepdim=True) for t in range(i.x.shape[1])]
    return (i.x + i.z.gather(1, torch.cat(at, 1)),), {}


CASES = [
    Case("folds", of_the_largest, "x[t,c] z[t,c]"),
    Case("folds", since_the_flag, "x[t,c] flag[t]:rare"),
    Case("folds", mean_and_variance, "x[t,c] on[t]:bool"),
    Case("folds", turns, "x[t,c]:complex w[t,c]"),
]
