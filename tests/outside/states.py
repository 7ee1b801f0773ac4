"""States of every rank, reads of every kind, starts, chains and several writes, written out as loops."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from tests.outside.case import Case, Finals, Given, Outputs, loop, outer, read

Step = tuple[Tensor, Tensor]


def one_number(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        S = i.g[:, t].exp() * S + i.x[:, t]
        return S, S - i.x[:, t] / 2

    return loop(i.x.shape[1], s, step)


def four_axes(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        write = torch.einsum("bhd,bhe,bhn->bhden", i.k[:, t], i.v[:, t], i.u[:, t])
        S = i.g[:, t, :, :, None, None].exp() * S + write
        return S, torch.einsum("bhd,bhn,bhden->bhe", i.q[:, t], i.r[:, t], S)

    return loop(i.q.shape[1], s, step)


def normalised(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor, z: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        a = i.g[:, t, :, None].exp()
        S, z = a[..., None] * S + outer(i.k[:, t], i.v[:, t]), a * z + i.k[:, t]
        size = (i.q[:, t] * z).sum(-1, keepdim=True).abs().clamp(min=1)
        return (S, z), read(i.q[:, t], S) / size

    return loop(i.q.shape[1], s, step)


def shown(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        S = i.g[:, t, :, None].exp() * S + outer(i.k[:, t], i.v[:, t])
        return S, (S, (S * i.v[:, t, None, :]).sum(-1))

    return loop(i.k.shape[1], s, step)


def two_queries(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        before = read(i.p[:, t], S) * silu(i.v[:, t])
        S = i.g[:, t, :, :, None].exp() * S + outer(i.k[:, t], i.v[:, t])
        return S, (read(i.q[:, t] + i.p[:, t], S), before)

    return loop(i.q.shape[1], s, step)


def number_read(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        S = i.g[:, t, :, :, None].exp() * S + outer(i.k[:, t], i.v[:, t])
        return S, (read(i.q[:, t], S) * i.r[:, t]).sum(-1)

    return loop(i.q.shape[1], s, step)


def both_ways(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        S = i.g[:, t, None, None].exp() * S + outer(i.k[:, t], i.v[:, t])
        return S, (read(i.q[:, t], S), (S * i.r[:, t, None, :]).sum(-1))

    return loop(i.q.shape[1], s, step)


def learned_start(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        S = i.g[:, t, :, :, None].exp() * S + outer(i.k[:, t], i.v[:, t])
        return S, read(i.q[:, t], S)

    return loop(i.q.shape[1], s, step)


def given_start(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        return i.g[:, t, None, :].exp() * S + outer(i.k[:, t], i.v[:, t]), read(i.q[:, t], S)

    return loop(i.q.shape[1], s, step)


def decay_from_state(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, m: Tensor, S: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        m = i.g[:, t].exp() * m + i.x[:, t]
        S = torch.exp(-softplus(m, threshold=1e9))[:, None, None] * S + outer(i.k[:, t], i.v[:, t])
        return (m, S), read(i.q[:, t], S)

    return loop(i.q.shape[1], s, step)


def chained(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, A: Tensor, B: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        w = read(i.q[:, t], A)
        A = i.g[:, t, :, None].exp() * A + outer(i.k[:, t], i.v[:, t])
        B = i.f[:, t, None, None].exp() * B + outer(i.k[:, t], i.v[:, t] - w)
        return (A, B), read(i.q[:, t], B)

    return loop(i.q.shape[1], s, step)


def many_writers(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        S = i.g[:, t, :, :, None].exp() * S + outer(i.k[:, t], i.v[:, t]).sum(1)
        return S, read(i.q[:, t], S)

    return loop(i.q.shape[1], s, step)


def two_writes(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        S = i.g[:, t, :, None, None].exp() * S + outer(i.k[:, t], i.v[:, t] - 0.5) + i.u[:, t, :, None, :] / 4
        return S, read(i.q[:, t], S)

    return loop(i.q.shape[1], s, step)


def mixed_use(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        after = i.g[:, t].exp() * S + i.x[:, t]
        return after, (after.tanh() * S, (i.q[:, t] * after).sum(-1))

    return loop(i.q.shape[1], s, step)


def shared_key(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        S = i.g[:, t, :, None, None].exp() * S + outer(i.k[:, t, None, :], i.v[:, t])
        return S, read(i.q[:, t, None, :], S)

    return loop(i.q.shape[1], s, step)


def grouped(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        S = i.g[:, t, :, None, None].exp() * S + outer(i.k[:, t], i.v[:, t])
        return S, read(i.q[:, t], S[:, [0, 0, 1]])

    return loop(i.q.shape[1], s, step)


def momentum(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, m: Tensor, y: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        m = i.g[:, t].exp() * m + i.x[:, t]
        f = i.f[:, t].exp()
        y = f * y + (1 - f) * m
        return (m, y), y

    return loop(i.x.shape[1], s, step)


def running_sums(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, a: Tensor, b: Tensor, c: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        a = a + i.x[:, t] ** 2
        b, mark = b + i.u[:, t] * a, i.mark[:, t, None]
        c = c + torch.where(mark, i.x[:, t], 0)
        return (a, b, c), torch.sin(a / 50) + b / 10 + torch.where(mark, c, 0)

    zero = torch.zeros_like(i.x[:, 0])
    return loop(i.x.shape[1], {"a": zero, "b": zero, "c": zero}, step)[0], {}


def fed_by_a_sum(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, a: Tensor, S: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        a = a + i.x[:, t]
        S = i.g[:, t].exp() * S + a
        return (a, S), S

    outputs, finals = loop(i.x.shape[1], {"a": torch.zeros_like(i.x[:, 0]), **s}, step)
    return outputs, {"S": finals["S"]}


learned_start.begin = lambda i, p, s: {"S": p["S0"].expand_as(s["S"])}  # type: ignore[attr-defined]
given_start.begin = lambda i, p, s: {"S": outer(i.a, i.b)}  # type: ignore[attr-defined]

QKV, HEADS = "q[t,d] k[t,d]:key v[t,e] ", "q[t,h,d] k[t,h,d]:key v[t,h,e] "
MATRIX = "scan chunkwise quadratic"
CASES = [
    Case("states", one_number, "x[t] g[t]:decay", "S", forms="scan chunkwise"),
    Case(
        "states",
        four_axes,
        "q[t,h,d] r[t,h,n] k[t,h,d]:key v[t,h,e] u[t,h,n] g[t,h,d]:decay",
        "S[h,d,e,n]",
        forms=MATRIX,
    ),
    Case("states", normalised, HEADS + "g[t,h]:decay", "S[h,d,e] z[h,d]", forms=MATRIX),
    Case("states", shown, "k[t,d]:key v[t,e] g[t,d]:decay", "S[d,e]", forms="scan chunkwise"),
    Case("states", two_queries, "q[t,h,d] p[t,h,d] k[t,h,d]:key v[t,h,e] g[t,h,d]:decay", "S[h,d,e]", forms=MATRIX),
    Case("states", number_read, "q[t,h,d] r[t,h,e] k[t,h,d]:key v[t,h,e] g[t,h,d]:decay", "S[h,d,e]", forms=MATRIX),
    Case("states", both_ways, "q[t,d] r[t,e] k[t,d]:key v[t,e] g[t]:decay", "S[d,e]", forms=MATRIX),
    Case("states", learned_start, HEADS + "g[t,h,d]:decay", "S[h,d,e]", forms=MATRIX, params="S0[h,d,e]"),
    Case("states", given_start, QKV + "g[t,e]:decay a[d] b[e]", "S[d,e]", forms=MATRIX),
    Case("states", decay_from_state, QKV + "x[t] g[t]:decay", "m S[d,e]", forms="scan chunkwise"),
    Case("states", chained, QKV + "g[t,d]:decay f[t]:decay", "A[d,e] B[d,e]", forms=MATRIX),
    Case("states", many_writers, "q[t,h,d] k[t,j,h,d]:key v[t,j,h,e] g[t,h,d]:decay", "S[h,d,e]", forms=MATRIX),
    Case("states", two_writes, HEADS + "u[t,h,e] g[t,h]:decay", "S[h,d,e]", forms=MATRIX),
    Case("states", mixed_use, "q[t,c] x[t,c] g[t,c]:decay", "S[c]", forms="scan chunkwise"),
    Case("states", shared_key, "q[t,d] k[t,d]:key v[t,h,e] g[t,h]:decay", "S[h,d,e]", forms=MATRIX),
    Case("states", grouped, "q[t,i,d] k[t,h,d]:key v[t,h,e] g[t,h]:decay", "S[h,d,e]", forms="scan chunkwise"),
    Case("states", running_sums, "x[t,c] u[t,c] mark[t]:bool", forms="scan chunkwise"),
    Case("states", fed_by_a_sum, "x[t,c] g[t,c]:decay", "S[c]", forms="scan chunkwise"),
    Case("states", momentum, "x[t,c] g[t,c]:decay f[t,c]:decay", "m[c] y[c]", forms="scan chunkwise"),
]
