"""Filters, sums and recurrences from the end, written out as loops."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.outside.case import Case, Finals, Given, Outputs, loop, outer, read

Step = tuple[Tensor, Tensor]


def moving_average(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, y: Tensor) -> Step:
        a = torch.sigmoid(p["p"])
        y = a * y + (1 - a) * i.x[:, t]
        return y, y

    return loop(i.x.shape[1], s, step)


def filter_bank(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    poles = torch.tensor([-0.5, -0.5 + 3j], dtype=torch.complex128)
    a = torch.exp(p["s"].exp()[:, None] * poles)

    def step(t: int, S: Tensor) -> Step:
        S = a * S + i.x[:, t, :, None]
        return S, 2 * (p["C"] * S).sum(-1).real + p["D"] * i.x[:, t]

    return loop(i.x.shape[1], s, step)


def running_sum(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    return loop(i.x.shape[1], s, lambda t, y: (y + i.x[:, t], y + i.x[:, t]))


def plain_memory(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        S = S + outer(i.k[:, t], i.v[:, t])
        return S, read(i.q[:, t], S) / (t + 1)

    return loop(i.q.shape[1], s, step)


def window_sum(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, y: Tensor) -> Step:
        y = y + i.x[:, t] - (i.x[:, t - 3] if t >= 3 else 0)
        return y, y

    return loop(i.x.shape[1], s, step)


def window_taps(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int) -> tuple[tuple[Tensor, ...], Tensor]:
        return (), silu(sum((i.w[:, j] * i.x[:, t - j] for j in range(min(4, t + 1))), torch.zeros(())))

    return loop(i.x.shape[1], s, step)


def running_mean(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, y: Tensor) -> Step:
        y = t / (t + 1) * y + i.x[:, t] / (t + 1)
        return y, y

    return loop(i.x.shape[1], s, step)


def two_poles(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, a: Tensor, b: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        a = -0.75 * a + i.x[:, t]
        b = 0.5 * b + (i.x[:, t - 1] if t else 0)
        return (a, b), a + b / 2

    return loop(i.x.shape[1], s, step)


def slow_growth(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, y: Tensor) -> Step:
        y = 1.002 * y + i.x[:, t]
        return y, y

    return loop(i.x.shape[1], s, step)


def long_kernel(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int) -> tuple[tuple[Tensor, ...], Tensor]:
        lag = t - torch.arange(t + 1, dtype=torch.float64)
        kernel = torch.exp(-lag / 8)[:, None] * torch.cos(i.f[:, None] * lag[:, None]) * i.w[:, None]
        return (), (kernel * i.x[:, : t + 1]).sum(1)

    return loop(i.x.shape[1], s, step)


def _from_the_end(i: Given, g: Tensor) -> Tensor:
    def step(t: int, r: Tensor) -> Step:
        r = g[:, t].exp() * r + i.x[:, t]
        return r, r

    return loop(i.x.shape[1], {"r": torch.zeros_like(i.x[:, 0])}, step, reverse=True)[0][0]


def both_directions(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, a: Tensor) -> Step:
        a = i.g[:, t].exp() * a + i.x[:, t]
        return a, a

    forwards = loop(i.x.shape[1], {"a": torch.zeros_like(i.x[:, 0])}, step)[0][0]
    return (forwards + _from_the_end(i, i.f) - i.x,), {}


def suffix_sum(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    return (_from_the_end(i, i.g) - i.x,), {}


def future_memory(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        o = read(i.q[:, t], S)
        return i.g[:, t, :, None].exp() * (S + outer(i.k[:, t], i.v[:, t])), o

    zero = torch.zeros_like(outer(i.k[:, 0], i.v[:, 0]))
    return loop(i.q.shape[1], {"S": zero}, step, reverse=True)[0], {}


def harmonic(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, y: Tensor) -> Step:
        y = torch.exp(-(i.b**2) / (t + 1)) * y + i.x[:, t]
        return y, y

    return loop(i.x.shape[1], s, step)


ALL = "scan chunkwise convolution"
FILTER = "s[c] C[c,n]:complex D[c]"
CASES = [
    Case("invariant", moving_average, "x[t,c]", "y[c]", forms=ALL, params="p[c]"),
    Case("invariant", filter_bank, "x[t,c]", "S[c,n]:complex", forms=ALL, params=FILTER, sizes=(("c", 4),)),
    Case("invariant", running_sum, "x[t,c]", "y[c]", forms=ALL),
    Case("invariant", plain_memory, "q[t,h,d] k[t,h,d]:key v[t,h,e]", "S[h,d,e]", forms="scan chunkwise quadratic"),
    Case("invariant", window_sum, "x[t,c]", "y[c]", forms=ALL),
    Case("invariant", window_taps, "x[t,c] w[j,c]"),
    Case("invariant", running_mean, "x[t,c]", "y[c]", forms="scan chunkwise"),
    Case("invariant", two_poles, "x[t,c]", "a[c] b[c]", forms=ALL),
    Case("invariant", slow_growth, "x[t,c]", "y[c]", forms=ALL),
    Case("invariant", long_kernel, "x[t,c] w[c] f[c]"),
    Case("invariant", both_directions, "x[t,c] g[t,c]:decay f[t,c]:decay", forms="scan chunkwise", reverse=True),
    Case("invariant", suffix_sum, "x[t,c] g[t,c]:decay", forms="scan chunkwise", reverse=True),
    Case("invariant", future_memory, "q[t,d] k[t,d]:key v[t,e] g[t,d]:decay", forms="scan chunkwise", reverse=True),
    Case("invariant", harmonic, "x[t,c] b[c]", "y[c]", forms="scan chunkwise"),
]
