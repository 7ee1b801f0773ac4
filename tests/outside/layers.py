"""Layers with parameters, written out as loops."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, silu, softplus

from tests.outside.case import Case, Finals, Given, Outputs, loop, outer, read

Step = tuple[Tensor, Tensor]


def gated_layer(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        q, k, v, g = (torch.einsum("bc,chd->bhd", i.x[:, t], p[f"{n}.weight"]) for n in "qkvg")
        k = k / ((k * k).sum(-1, keepdim=True) + 1e-12).sqrt()
        g = logsigmoid(g + p["g.bias"]) / 4
        S = g.exp()[..., None] * S + outer(k, silu(v))
        o = read(q, S)
        o = o / ((o * o).mean(-1, keepdim=True) + 1e-6).sqrt()
        return S, torch.einsum("bhe,hec->bc", o, p["y.weight"])

    return loop(i.x.shape[1], s, step)


def conv_gate(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, h: Tensor) -> Step:
        u = silu(sum((p["w"][j] * i.x[:, t - j] for j in range(min(3, t + 1))), torch.zeros(())))
        f = torch.sigmoid(u @ p["f.weight"])
        h = f * h + (1 - f) * u
        return h, h * (i.x[:, t] @ p["y.weight"]) + i.x[:, t]

    return loop(i.x.shape[1], s, step)


def multi_query(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    def step(t: int, S: Tensor) -> Step:
        x = i.x[:, t]
        q = torch.einsum("bc,chd->bhd", x, p["q.weight"])
        k, v = x @ p["k.weight"], x @ p["v.weight"]
        dt = softplus(x @ p["dt.weight"] + p["dt.bias"], threshold=1e9)[:, :, None, None]
        S = torch.exp(-dt * p["A"].exp()[:, None, None]) * S + dt * outer(k, v)[:, None]
        return S, torch.einsum("bhe,hec->bc", read(q, S), p["y.weight"])

    return loop(i.x.shape[1], s, step)


def named_roots(i: Given, p: Given, s: Finals) -> tuple[Outputs, Finals]:
    x = torch.where(i.x > 0, i.x, 1)
    return (torch.where(i.x > 0, x.sqrt() * x.log(), -i.x),), {}


HEADED = " ".join(f"{n}.weight[c,h,m]:small" for n in "qkvg")
CASES = [
    Case("layers", named_roots, "x[t,c]"),
    Case(
        "layers",
        gated_layer,
        "x[t,c]",
        "S[h,m,m]",
        forms="scan chunkwise quadratic",
        params=HEADED + " g.bias[h,m] y.weight[h,m,c]:small",
        sizes=(("c", 4),),
        bf16=4,
    ),
    Case(
        "layers",
        conv_gate,
        "x[t,c]",
        "h[c]",
        forms="scan chunkwise",
        params="w[m,c] f.weight[c,c] y.weight[c,c]",
        sizes=(("c", 4),),
        bf16=4,
    ),
    Case(
        "layers",
        multi_query,
        "x[t,c]",
        "S[h,m,m]",
        forms="scan chunkwise quadratic",
        params="q.weight[c,h,m] k.weight[c,m] v.weight[c,m] dt.weight[c,h] dt.bias[h] A[h] y.weight[h,m,c]",
        sizes=(("c", 4),),
        bf16=4,
    ),
]
