"""Low-rank, dense, coupled and nonlinear recurrences, written out as loops."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.outside.case import Case, Finals, Given, Outputs, loop, outer, read

Step = tuple[Tensor, Tensor]


def erase_and_write(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        S = i.g[:, t, :, :, None].exp() * S
        change = torch.sigmoid(i.b[:, t, :, None]) * (i.v[:, t] - read(i.k[:, t], S))
        S = S + outer(i.k[:, t], change)
        return S, read(i.q[:, t], S)

    return loop(i.q.shape[1], s, step)


def turned(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, y: Tensor) -> Step:
        y = torch.einsum("bnm,bcm->bcn", i.A[:, t], y) / 4 + i.x[:, t]
        return y, y

    return loop(i.x.shape[1], s, step)


def gated_unit(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, h: Tensor) -> Step:
        z = torch.sigmoid(i.x[:, t] @ p["W"] + h)
        h = z * h + (1 - z) * torch.tanh(h @ p["U"].T)
        return h, h

    return loop(i.x.shape[1], s, step)


def exchange(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, a: Tensor, b: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        c, n = 0.9 * i.w[:, t].cos(), 0.9 * i.w[:, t].sin()
        a, b = c * a - n * b + i.x[:, t], n * a + c * b
        return (a, b), a - b

    return loop(i.x.shape[1], s, step)


def second_order(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    zero = torch.zeros_like(i.x[:, 0])

    def step(t: int, y: Tensor, older: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        after = i.f[:, t].tanh() / 2 * y - older / 4 + i.x[:, t]
        return (after, y), after

    return loop(i.x.shape[1], {"y": zero, "older": zero}, step)[0], {}


CASES = [
    Case("stepped", erase_and_write, "q[t,h,d] k[t,h,d]:unit v[t,h,e] b[t,h] g[t,h,d]:decay", "S[h,d,e]"),
    Case("stepped", turned, "x[t,c,n] A[t,n,n]", "y[c,n]"),
    Case("stepped", gated_unit, "x[t,c]", "h[m]", params="W[c,m] U[m,m]:small", sizes=(("c", 4),)),
    Case("stepped", exchange, "x[t,c] w[t,c]", "a[c] b[c]"),
    Case("stepped", second_order, "x[t,c] f[t,c]"),
]
