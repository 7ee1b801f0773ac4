"""Every kind of decay of a matrix state, written out as loops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tests.outside.case import Case, Finals, Given, Outputs, loop, outer, read


def scalar_decay(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        S = i.g[:, t, None, None].exp() * S + i.k[:, t, :, None] * i.v[:, t, None, :]
        return S, torch.einsum("bd,bde->be", i.q[:, t], S)

    return loop(i.q.shape[1], s, step)


def head_decay(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        a = i.g[:, t, :, None, None].exp()
        S = a * S + (1 - a) * outer(i.k[:, t], i.v[:, t])
        return S, 2 * read(i.q[:, t], S) / i.q.shape[-1] ** 0.5

    return loop(i.q.shape[1], s, step)


def key_decay_bonus(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        kv = outer(i.k[:, t], i.v[:, t])
        o = read(i.q[:, t], S + i.u[:, :, :, None] * kv)
        return i.g[:, t, :, :, None].exp() * (S + kv), o

    return loop(i.q.shape[1], s, step)


def value_decay(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        before = read(i.k[:, t], S)
        S = i.g[:, t, :, None, :].exp() * S + outer(i.k[:, t], i.v[:, t])
        return S, read(i.q[:, t], S) - before

    return loop(i.q.shape[1], s, step)


def both_decays(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        S = i.a[:, t, :, :, None].exp() * S * i.b[:, t, :, None, :].exp() + outer(i.k[:, t], i.v[:, t])
        return S, read(i.q[:, t], S)

    return loop(i.q.shape[1], s, step)


def entry_decay(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        S = i.g[:, t].exp() * S + i.k[:, t, :, None] * i.v[:, t, None, :]
        return S, torch.einsum("bd,bde->be", i.q[:, t], S)

    return loop(i.q.shape[1], s, step)


def _by_key(factor: Any, write: Any = lambda i, t: 1.0) -> Any:
    """S = factor[t] S + write[t] k v, o = q S."""

    def reference(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
        def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
            S = factor(i, p, t) * S + write(i, t) * outer(i.k[:, t], i.v[:, t])
            return S, read(i.q[:, t], S)

        return loop(i.q.shape[1], s, step)

    return reference


raw_factor = _by_key(lambda i, p, t: i.a[:, t, :, :, None])
sigmoid_gate = _by_key(
    lambda i, p, t: torch.sigmoid(i.f[:, t, :, :, None]), lambda i, t: torch.sigmoid(-i.f[:, t, :, :, None])
)
flag_reset = _by_key(lambda i, p, t: torch.where(i.flag[:, t, :, None, None], 0.0, i.g[:, t, :, :, None].exp()))
constant_decay = _by_key(lambda i, p, t: 0.9375)
position_decay = _by_key(lambda i, p, t: (1 - 2.0 ** (-2 - 3 * torch.arange(2.0, dtype=torch.float64)))[:, None, None])
learned_decay = _by_key(lambda i, p, t: torch.exp(-torch.exp(p["p"]))[:, :, None])
squared_decay = _by_key(
    lambda i, p, t: (2 * i.g[:, t, :, None, None]).exp() * torch.sigmoid(i.f[:, t, :, :, None]),
)


def swinging(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        kv = outer(i.k[:, t], i.v[:, t])
        o = read(i.q[:, t], S) + read(i.q[:, t], kv)
        return -torch.tanh(i.f[:, t, :, None, None]) * S - kv / 2, o

    return loop(i.q.shape[1], s, step)


def phase(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        S = torch.polar(i.r[:, t].exp(), i.w[:, t]) * S + i.x[:, t]
        return S, torch.einsum("bn,bcn->bc", i.C[:, t], S).real

    return loop(i.x.shape[1], s, step)


def complex_memory(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.einsum("bd,bde->be", i.k[:, t], S).real
        S = i.g[:, t, :, None].exp() * S + i.k[:, t, :, None].conj() * i.v[:, t, None, :]
        return S, torch.einsum("bd,bde->be", i.q[:, t], S).imag + before

    return loop(i.q.shape[1], s, step)


def document_reset(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        before = i.doc[:, t - 1] if t else torch.zeros_like(i.doc[:, 0])
        S = (i.doc[:, t] == before)[:, None, None] * S + i.k[:, t, :, None] * i.v[:, t, None, :]
        return S, torch.einsum("bd,bde->be", i.q[:, t], S) / (1 + i.doc[:, t, None])

    return loop(i.q.shape[1], s, step)


def step_size(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> tuple[Tensor, Tensor]:
        dt = softplus(i.dt[:, t], threshold=1e9)[:, :, None]
        S = torch.exp(-dt * i.A.exp()) * S + dt * i.B[:, t, None, :] * i.x[:, t, :, None]
        return S, torch.einsum("bn,bcn->bc", i.C[:, t], S) + i.x[:, t]

    return loop(i.x.shape[1], s, step)


QKV, HEADS = "q[t,d] k[t,d]:key v[t,e] ", "q[t,h,d] k[t,h,d]:key v[t,h,e] "
CASES = [
    Case("decays", scalar_decay, QKV + "g[t]:decay", "S[d,e]", forms="scan chunkwise quadratic"),
    Case("decays", head_decay, HEADS + "g[t,h]:decay", "S[h,d,e]", forms="scan chunkwise quadratic"),
    Case("decays", key_decay_bonus, HEADS + "g[t,h,d]:decay u[h,d]", "S[h,d,e]", forms="scan chunkwise quadratic"),
    Case("decays", value_decay, HEADS + "g[t,h,e]:decay", "S[h,d,e]", forms="scan chunkwise quadratic"),
    Case("decays", both_decays, HEADS + "a[t,h,d]:decay b[t,h,e]:decay", "S[h,d,e]", forms="scan chunkwise"),
    Case("decays", entry_decay, QKV + "g[t,d,e]:decay", "S[d,e]", forms="scan chunkwise"),
    Case("decays", raw_factor, HEADS + "a[t,h,d]:raw", "S[h,d,e]", forms="scan chunkwise quadratic", name="raw_factor"),
    Case(
        "decays",
        sigmoid_gate,
        HEADS + "f[t,h,d]:gate",
        "S[h,d,e]",
        forms="scan chunkwise quadratic",
        name="sigmoid_gate",
    ),
    Case("decays", swinging, HEADS + "f[t,h]:gate", "S[h,d,e]", forms="scan chunkwise quadratic"),
    Case("decays", phase, "x[t,c,n] w[t,c,n] r[t,c,n]:decay C[t,n]:complex", "S[c,n]:complex", forms="scan chunkwise"),
    Case(
        "decays",
        complex_memory,
        "q[t,d]:complex k[t,d]:complex v[t,e] g[t,d]:decay",
        "S[d,e]:complex",
        forms="scan chunkwise quadratic",
    ),
    Case(
        "decays",
        flag_reset,
        HEADS + "g[t,h,d]:decay flag[t,h]:rare",
        "S[h,d,e]",
        forms="scan chunkwise quadratic",
        name="flag_reset",
    ),
    Case("decays", document_reset, QKV + "doc[t]:document", "S[d,e]", forms="scan chunkwise quadratic"),
    Case("decays", constant_decay, HEADS, "S[h,d,e]", forms="scan chunkwise quadratic", name="constant_decay"),
    Case("decays", position_decay, HEADS, "S[h,d,e]", forms="scan chunkwise quadratic", name="position_decay"),
    Case(
        "decays",
        learned_decay,
        HEADS,
        "S[h,d,e]",
        forms="scan chunkwise quadratic",
        params="p[h,d]",
        name="learned_decay",
    ),
    Case(
        "decays",
        squared_decay,
        HEADS + "g[t,h]:decay f[t,h,d]:gate",
        "S[h,d,e]",
        forms="scan chunkwise quadratic",
        name="squared_decay",
    ),
    Case("decays", step_size, "x[t,c] dt[t,c] A[c,n] B[t,n] C[t,n]", "S[c,n]", forms="scan chunkwise"),
]
