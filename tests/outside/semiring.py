"""Maxima, minima, flags and stabilised exponentials, written out as loops."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.outside.case import Case, Finals, Given, Outputs, loop, outer, read

Step = tuple[Tensor, Tensor]


def fading_maximum(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, m: Tensor) -> Step:
        m = torch.maximum(m + i.g[:, t], i.x[:, t])
        return m, m

    return loop(i.x.shape[1], s, step)


def running_minimum(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, y: Tensor) -> Step:
        y = torch.minimum(torch.where(i.flag[:, t, None], torch.inf, y), i.x[:, t])
        return y, y

    return loop(i.x.shape[1], s, step)


def stable_gates(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, m: Tensor, S: Tensor, z: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        after = torch.maximum(i.g[:, t] + m, i.u[:, t])
        a, w = torch.exp(i.g[:, t] + m - after)[..., None], torch.exp(i.u[:, t] - after)[..., None]
        S = a[..., None] * S + outer(w * i.k[:, t], i.v[:, t])
        z = a * z + w * i.k[:, t]
        size = torch.maximum((i.q[:, t] * z).sum(-1).abs(), torch.exp(-after))
        return (after, S, z), read(i.q[:, t], S) / size[..., None]

    return loop(i.q.shape[1], s, step)


def running_softmax(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, m: Tensor, n: Tensor, z: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        after = torch.maximum(m, i.a[:, t])
        keep, w = torch.exp(m - after), torch.exp(i.a[:, t] - after)
        n = keep[..., None] * n + w[..., None] * i.v[:, t]
        z = keep * z + w
        return (after, n, z), n / z[..., None]

    return loop(i.a.shape[1], s, step)


def soft_maximum(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, z: Tensor) -> Step:
        z = torch.logaddexp(z + i.g[:, t], i.x[:, t])
        return z, z

    return loop(i.x.shape[1], s, step)


def any_so_far(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, held: Tensor) -> Step:
        held = i.on[:, t] | (~i.clear[:, t, None] & held)
        return held, torch.where(held, i.x[:, t], -i.x[:, t] / 2)

    return loop(i.x.shape[1], {"s": torch.zeros_like(i.on[:, 0])}, step)[0], {}


def since_flag(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, n: Tensor) -> Step:
        n = torch.where(i.flag[:, t], 0, n + 1)
        return n, i.x[:, t] / (1 + n[:, None])

    return loop(i.x.shape[1], {"n": torch.zeros_like(i.flag[:, 0], dtype=torch.long)}, step)[0], {}


def _empty(*names: str, at: float = -torch.inf) -> object:
    return lambda i, p, s: {n: torch.full_like(x, at) if n in names else torch.zeros_like(x) for n, x in s.items()}


fading_maximum.begin = _empty("m")  # type: ignore[attr-defined]
running_minimum.begin = _empty("y", at=torch.inf)  # type: ignore[attr-defined]
stable_gates.begin = _empty("m")  # type: ignore[attr-defined]
running_softmax.begin = _empty("m")  # type: ignore[attr-defined]
soft_maximum.begin = _empty("z")  # type: ignore[attr-defined]

CASES = [
    Case("semiring", fading_maximum, "x[t,c] g[t,c]:decay", "m[c]"),
    Case("semiring", running_minimum, "x[t,c] flag[t]:rare", "y[c]"),
    Case(
        "semiring", stable_gates, "q[t,h,d] k[t,h,d]:key v[t,h,e] u[t,h] g[t,h]:decay", "m[h] S[h,d,e] z[h,d]", loose=2
    ),
    Case("semiring", running_softmax, "a[t,h] v[t,h,e]", "m[h] n[h,e] z[h]:positive"),
    Case("semiring", soft_maximum, "x[t,c] g[t,c]:decay", "z[c]"),
    Case("semiring", any_so_far, "on[t,c]:rare clear[t]:rare x[t,c]"),
    Case("semiring", since_flag, "flag[t]:rare x[t,c]"),
]
