"""What one would write by hand today, to be measured against.

Entry points: the loops, `diagonal_associative_scan`, `naive_simple_gla` (flash-linear-attention's own chunk form,
loaded by path), `attention`, `gru`. A baseline that is not installed says why: `Missing`.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Missing(Exception):
    """A baseline that cannot run here; the message names what is missing."""


def linear_attention_loop(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The differentiable unbind loop: q, k [B, T, H, K], v [B, T, H, V], log decay g [B, T, H, 1 or K] -> o, S_T."""
    state = q.new_zeros(*k[:, 0].shape, v.shape[-1]) if start is None else start
    outputs = []
    for q_t, k_t, v_t, a_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), g.exp().unbind(1), strict=True):
        state = a_t.unsqueeze(-1) * state + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        outputs.append((q_t.unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(outputs, 1), state


def simple_gla_loop(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """One log decay per head: g [B, T, H]."""
    return linear_attention_loop(q, k, v, g.unsqueeze(-1))


def gla_loop(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """One log decay per key channel: g [B, T, H, K]."""
    return linear_attention_loop(q, k, v, g)


def gated_delta_loop(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> Tensor:
    """q, k [B, T, H, K], v [B, T, H, V], beta and log decay g [B, T, H]."""
    state = q.new_zeros(*k[:, 0].shape, v.shape[-1])
    outputs = []
    steps = (x.unbind(1) for x in (q, k, v, beta, g.exp()))
    for q_t, k_t, v_t, beta_t, a_t in zip(*steps, strict=True):
        state = a_t[..., None, None] * state
        error = v_t - (k_t.unsqueeze(-2) @ state).squeeze(-2)
        state = state + (beta_t.unsqueeze(-1) * k_t).unsqueeze(-1) * error.unsqueeze(-2)
        outputs.append((q_t.unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(outputs, 1)


def diagonal_loop(a: Tensor, b: Tensor) -> Tensor:
    """h[t] = a[t] h[t-1] + b[t], all [B, T, D]."""
    state = torch.zeros_like(b[:, 0])
    states = []
    for a_t, b_t in zip(a.unbind(1), b.unbind(1), strict=True):
        state = a_t * state + b_t
        states.append(state)
    return torch.stack(states, 1)


def grid_loop(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """y[i,j] = a[i,j] y[i-1,j] + b[i,j] y[i,j-1] + x[i,j], all [B, I, J, C]."""
    above, rows = [torch.zeros_like(x[:, 0, 0])] * x.shape[2], []
    for row in zip(x.unbind(1), a.unbind(1), b.unbind(1), strict=True):
        state, cells = torch.zeros_like(x[:, 0, 0]), []
        for x_ij, a_ij, b_ij, before in zip(*(v.unbind(1) for v in row), above, strict=True):
            state = a_ij * before + b_ij * state + x_ij
            cells.append(state)
        rows.append(torch.stack(cells, 1))
        above = cells
    return torch.stack(rows, 1)


def selective_scan_loop(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor) -> Tensor:
    """Mamba's scan: x, dt [B, T, D], A [B, D, N], B, C [B, T, N], skip [B, D] -> y [B, T, D]."""
    state = x.new_zeros(*x[:, 0].shape, A.shape[-1])
    decay = (dt.unsqueeze(-1) * A.unsqueeze(1)).exp()
    outputs = []
    for a_t, w_t, B_t, C_t in zip(*(z.unbind(1) for z in (decay, dt * x, B, C)), strict=True):
        state = a_t * state + w_t.unsqueeze(-1) * B_t.unsqueeze(-2)
        outputs.append((state @ C_t.unsqueeze(-1)).squeeze(-1))
    return torch.stack(outputs, 1) + skip.unsqueeze(1) * x


def s4d_loop(u: Tensor, a: Tensor, b: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """A diagonal state space, complex and the same at all times: u [B, T, D]; a, b, C [D, N], D [D]."""
    state = torch.zeros((u.shape[0], *a.shape), dtype=a.dtype)
    outputs = []
    for u_t in u.unbind(1):
        state = a * state + b * u_t.unsqueeze(-1)
        outputs.append(2 * (C * state).sum(-1).real)
    return torch.stack(outputs, 1) + D * u


def s4_loop(u: Tensor, lam: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor) -> Tensor:
    """S4 by the bilinear rule, the rank-one part divided out: u [B, T, D], lam, P, B [B, N], C [B, D, N], dt [B, D]."""
    two = (2 / dt).unsqueeze(-1)
    lam, P, B = (x.unsqueeze(1) for x in (lam, P, B))
    R = 1 / (two - lam)
    RP, PR = R * P, P.conj() * R
    weight = RP / (1 + (PR * P).sum(-1, keepdim=True))
    state = torch.zeros_like(C)
    outputs = []
    for u_t in u.unbind(1):
        z = (two + lam) * state - P * (P.conj() * state).sum(-1, keepdim=True) + 2 * B * u_t.unsqueeze(-1)
        state = R * z - weight * (PR * z).sum(-1, keepdim=True)
        outputs.append((C * state).sum(-1).real)
    return torch.stack(outputs, 1)


def lmu_matrices(width: int, theta: int) -> tuple[Tensor, Tensor]:
    """The matrix [N, N] and the column [N] of a Legendre memory, held between samples."""
    n = torch.arange(width, dtype=torch.float64)
    rate = (2 * n + 1) / theta
    sign = torch.where((n[:, None] - n) % 2 == 0, -1.0, 1.0).masked_fill(n[:, None] < n, -1.0)
    column = rate * torch.where(n % 2 == 0, 1.0, -1.0)
    both = torch.zeros(width + 1, width + 1, dtype=torch.float64)
    both[:width, :width], both[:width, width] = rate[:, None] * sign, column
    both = torch.linalg.matrix_exp(both).float()
    return both[:width, :width], both[:width, width]


def lmu_loop(u: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """u [B, T], a [N, N], b [N] -> the memories [B, T, N]."""
    state = u.new_zeros(len(u), len(a))
    states = []
    for u_t in u.unbind(1):
        state = state @ a.mT + u_t.unsqueeze(-1) * b
        states.append(state)
    return torch.stack(states, 1)


def para_gru_loop(z: Tensor, r: Tensor, g: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """A GRU that is entrywise in its state: what its gates read of the input [B, T, D], recurrent weights [D]."""
    state = torch.zeros_like(z[:, 0])
    states = []
    for z_t, r_t, g_t in zip(z.unbind(1), r.unbind(1), g.unbind(1), strict=True):
        update = torch.sigmoid(z_t + u * state)
        reset = torch.sigmoid(r_t + v * state)
        state = torch.lerp(state, torch.tanh(g_t + w * reset * state), update)
        states.append(state)
    return torch.stack(states, 1)


def chunked_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """gla in chunks of 16, the decay between each pair of positions by one exponential, for autograd to differentiate.

    Shapes:  q, k, g [B, T, H, K], v [B, T, H, V], T a multiple of 16 -> o [B, T, H, V]
    """
    q, k, v, g = (x.unflatten(1, (-1, 16)).transpose(2, 3) for x in (q, k, v, g))  # [B, N, H, 16, K or V]
    total = g.cumsum(-2)
    early = torch.ones(16, 16, dtype=torch.bool).tril()[..., None]
    span = (total.unsqueeze(-2) - total.unsqueeze(-3)).masked_fill(~early, -torch.inf).exp()
    inner = torch.einsum("bnhik,bnhijk,bnhjk->bnhij", q, span, k) @ v
    end = total[..., -1:, :]
    writes = (k * (end - total).exp()).mT @ v
    state = torch.zeros_like(writes[:, 0])
    states = []
    for a, write in zip(end.exp().mT.unbind(1), writes.unbind(1), strict=True):
        states.append(state)
        state = a * state + write
    return (inner + (q * total.exp()) @ torch.stack(states, 1)).transpose(2, 3).flatten(1, 2)


def diagonal_associative_scan(a: Tensor, b: Tensor) -> Tensor:
    """The same by torch's associative_scan, the only mode of it that runs on a CPU."""
    try:
        from torch._higher_order_ops.associative_scan import associative_scan
    except ImportError as error:
        raise Missing("torch has no associative_scan") from error

    def combine(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    _, h = associative_scan(combine, (a, b), dim=1, combine_mode="generic")
    return h  # type: ignore[no-any-return]


def naive_simple_gla() -> Callable[..., Any]:
    """flash-linear-attention's naive chunk form of simple_gla."""
    return _naive("simple_gla", "naive_chunk_simple_gla")


def naive_gated_delta_rule() -> Callable[..., Any]:
    """flash-linear-attention's naive chunk form of the gated delta rule."""
    return _naive("gated_delta_rule", "naive_chunk_gated_delta_rule")


def _naive(op: str, name: str) -> Callable[..., Any]:
    """A function of fla-core, loaded by path: the package itself wants a GPU, and another Triton, to be imported."""
    path = Path(sysconfig.get_paths()["purelib"]) / "fla" / "ops" / op / "naive.py"
    if not path.is_file():
        raise Missing(f"no {path}: pip install --no-deps fla-core, and einops")
    if importlib.util.find_spec("einops") is None:
        raise Missing("fla-core's naive.py imports einops, which is not installed")
    spec = importlib.util.spec_from_file_location(f"fla_naive_{op}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)  # type: ignore[no-any-return]


def plain_fft_conv(x: Tensor, w: Tensor) -> Tensor:
    """A causal convolution by rfft and irfft under plain autograd: x [B, C, T], w [C, T], time last."""
    size = 2 * x.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(w, size), size)[..., : x.shape[-1]]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal softmax attention by torch's own kernel: [B, T, H, D]."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def gru(width: int) -> torch.nn.GRU:
    """torch's own GRU, dense recurrent weights: [B, T, width] -> [B, T, width]."""
    return torch.nn.GRU(width, width, batch_first=True)
