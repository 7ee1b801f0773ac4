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


def velocity(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, M: Tensor, S: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        change = torch.sigmoid(i.b[:, t, :, None]) * (i.v[:, t] - read(i.k[:, t], S)) / 2
        M = i.g[:, t, :, :, None].exp() * M / 2 + outer(i.k[:, t], change)
        S = i.a[:, t, :, None, None].exp() * S + M
        return (M, S), read(i.q[:, t], S)

    return loop(i.q.shape[1], s, step)


def three_in_a_row(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, A: Tensor, B: Tensor, S: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        before, a = read(i.k[:, t], A), i.a[:, t, :, None, None].exp()
        A = a * A / 2 + outer(i.k[:, t], i.v[:, t] - read(i.k[:, t], B)) / 4
        B = i.g[:, t, :, :, None].exp() * B / 2 + A
        S = a * S + B / 2
        return (A, B, S), read(i.q[:, t], S) + before

    return loop(i.q.shape[1], s, step)


def frozen_and_fresh(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    zero = torch.zeros(i.q.shape[0], *i.q.shape[2:], i.v.shape[-1], dtype=i.q.dtype)

    def step(t: int, W: Tensor, held: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        held = W if t % 4 == 0 else held
        old, fresh = read(i.k[:, t], held), read(i.w[:, t], W)
        W = i.a[:, t, :, None, None].exp() * W + outer(i.k[:, t], i.v[:, t] - old) / 8 - outer(i.w[:, t], fresh) / 2
        return (W, held), read(i.q[:, t], W)

    return loop(i.q.shape[1], {"W": zero, "held": zero}, step)[0], {}


def complex_delta(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        u = i.k[:, t] / 4
        change = torch.sigmoid(i.b[:, t, None]) * (i.v[:, t] - read(u.conj(), S))
        S = torch.exp(i.g[:, t] + 1j * i.w[:, t])[:, None, None] * S + outer(u, change)
        return S, read(i.q[:, t], S).real

    return loop(i.q.shape[1], s, step)


def slots(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    rows = torch.arange(len(i.x))

    def step(t: int, S: Tensor) -> Step:
        w = torch.nn.functional.one_hot(i.into[:, t], 4) * torch.sigmoid(i.b[:, t, None])
        after = (1 - w)[..., None] * S + outer(w, i.x[:, t])
        return after, S[rows, i.from_[:, t]]

    return loop(i.x.shape[1], s, step)


CASES = [
    Case("stepped", erase_and_write, "q[t,h,d] k[t,h,d]:unit v[t,h,e] b[t,h] g[t,h,d]:decay", "S[h,d,e]"),
    Case("stepped", turned, "x[t,c,n] A[t,n,n]", "y[c,n]"),
    Case("stepped", gated_unit, "x[t,c]", "h[m]", params="W[c,m] U[m,m]:small", sizes=(("c", 4),)),
    Case("stepped", exchange, "x[t,c] w[t,c]", "a[c] b[c]"),
    Case(
        "stepped",
        complex_delta,
        "q[t,d]:complex k[t,d]:complex v[t,e] b[t] g[t]:decay w[t]",
        "S[d,e]:complex",
        forms="recurrent scan chunkwise quadratic",
        bf16=2,
    ),
    Case("stepped", slots, "x[t,c] b[t] into[t]:small_int from_[t]:small_int", "S[j,c]"),
    Case("stepped", second_order, "x[t,c] f[t,c]"),
    Case(
        "stepped",
        velocity,
        "q[t,h,d] k[t,h,d]:unit v[t,h,e] b[t,h] g[t,h,d]:decay a[t,h]:decay",
        "M[h,d,e] S[h,d,e]",
        forms="recurrent scan chunkwise quadratic",
    ),
    Case(
        "stepped",
        three_in_a_row,
        "q[t,h,d] k[t,h,d]:unit v[t,h,e] a[t,h]:decay g[t,h,d]:decay",
        "A[h,d,e] B[h,d,e] S[h,d,e]",
        forms="recurrent chunkwise quadratic",
    ),
    Case(
        "stepped",
        frozen_and_fresh,
        "q[t,h,d] k[t,h,d]:unit v[t,h,e] w[t,h,d]:unit a[t,h]:decay",
        forms="recurrent chunkwise quadratic",
    ),
]
