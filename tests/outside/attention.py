"""Attention with odd guards, biases and normalisers, position by position."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tests.outside.case import Case, Finals, Given, Outputs


def _each(i: Given, row: Callable[[int, Tensor], Tensor]) -> tuple[Outputs, Finals]:
    """`row(t, s)` with s = 0..t, for each t."""
    return (torch.stack([row(t, torch.arange(t + 1)) for t in range(i.q.shape[1])], 1),), {}


def _attend(a: Tensor, seen: Tensor, v: Tensor) -> Tensor:
    """Scores [B, s, H], seen [s] or [B, s], values [B, s, H, E]; nothing seen gives 0."""
    seen = seen.expand(a.shape[:2])[..., None].expand(a.shape)
    top = torch.where(seen, a, -torch.inf).amax(1, keepdim=True)
    w = torch.where(seen, torch.exp(torch.where(seen, a - torch.where(top.isinf(), 0, top), 0)), 0)
    total = w.sum(1, keepdim=True)
    return ((w / torch.where(total == 0, 1, total))[..., None] * v).sum(1)


def strict_window(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def row(t: int, at: Tensor) -> Tensor:
        a = torch.einsum("bhd,bshd->bsh", i.q[:, t], i.k[:, : t + 1]) / i.q.shape[-1] ** 0.5
        a = a - ((t - at) / 4)[:, None] * torch.arange(1.0, 3.0, dtype=torch.float64)
        return _attend(a, (at > t - 5) & (at < t), i.v[:, : t + 1])

    return _each(i, row)


def strided(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def row(t: int, at: Tensor) -> Tensor:
        k, v = i.k[:, : t + 1, [0, 0, 1]], i.v[:, : t + 1, [0, 0, 1]]
        a = 5 * torch.einsum("bid,bsid->bsi", i.q[:, t], k).tanh()
        return _attend(a, (at % 3 == 0) | (at == t), v)

    return _each(i, row)


def marked(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def row(t: int, at: Tensor) -> Tensor:
        a = torch.einsum("bd,bsd->bs", i.q[:, t], i.k[:, : t + 1])
        seen = (i.doc[:, : t + 1] == i.doc[:, t, None]) & i.mark[:, : t + 1]
        return _attend(a[..., None], seen, i.v[:, : t + 1, None])[:, 0]

    return _each(i, row)


def sigmoid_weights(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def row(t: int, at: Tensor) -> Tensor:
        a = torch.einsum("bhd,bshd->bsh", i.q[:, t], i.k[:, : t + 1]) + i.b[:, None]
        return (torch.sigmoid(a)[..., None] * i.v[:, : t + 1]).sum(1) / (t + 1) ** 0.5

    return _each(i, row)


def forgetting(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def row(t: int, at: Tensor) -> Tensor:
        a = torch.einsum("bhd,bshd->bsh", i.q[:, t], i.k[:, : t + 1])
        between = torch.stack([i.g[:, j + 1 : t + 1].sum(1) for j in range(t + 1)], 1)
        return _attend(a + between, at >= 0, i.v[:, : t + 1])

    return _each(i, row)


def with_sink(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def row(t: int, at: Tensor) -> Tensor:
        a = torch.einsum("bd,bsd->bs", i.q[:, t], i.k[:, : t + 1])
        weights = torch.softmax(torch.cat([i.z[:, None], a], 1), 1)[:, 1:]
        return torch.einsum("bs,bse->be", weights, i.v[:, : t + 1])

    return _each(i, row)


def late_growth(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def row(t: int, at: Tensor) -> Tensor:
        between = torch.stack([i.g[:, j + 1 : t + 1].sum(1) for j in range(t + 1)], 1)
        return torch.einsum("bs,bd,bsd,bse->be", between.exp(), i.q[:, t], i.k[:, : t + 1], i.v[:, : t + 1])

    return _each(i, row)


def power_law(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def row(t: int, at: Tensor) -> Tensor:
        w = torch.arange(t, 0, -1)[None] ** -torch.sigmoid(i.a)[:, None]
        return torch.einsum("bs,bd,bsd,bse->be", w, i.q[:, t], i.k[:, :t], i.v[:, :t])

    return _each(i, row)


QKV, HEADS = "q[t,d] k[s,d]:key v[s,e] ", "q[t,h,d] k[s,h,d]:key v[s,h,e] "
CASES = [
    Case("attention", strict_window, HEADS),
    Case("attention", strided, "q[t,i,d] k[s,h,d]:key v[s,h,e]"),
    Case("attention", marked, QKV + "doc[t]:document mark[s]:bool"),
    Case("attention", sigmoid_weights, HEADS + "b[h]"),
    Case("attention", forgetting, HEADS + "g[t,h]:mild", loose=4),
    Case("attention", with_sink, QKV + "z"),
    Case("attention", late_growth, "q[t,d] k[t,d]:key v[t,e] g[t]:mild", loose=10),
    Case("attention", power_law, "q[t,d] k[t,d]:key v[t,e] a"),
]
