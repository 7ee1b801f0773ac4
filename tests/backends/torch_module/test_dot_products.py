"""Scores that are inner products go to torch's attention, whoever wrote them and however; all others do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from seqdsl.backends.torch_module.support.dot_product_attention import dot_product_attention

import seqdsl

HEAD = "mixer m(q[t,h,d], k[t,h,d], v[t,h,e], w[h]) -> o[t,h,e]:\n    index s over t\n"
FUSED = {
    "plain": "    o[t,h,e] = sum[s] softmax[s | s <= t](sum[d] q[t] * k[s] / sqrt(|d|)) * v[s]\n",
    "all": "    o[t,h,e] = sum[s] softmax[s](sum[d] q[t] * k[s]) * v[s]\n",
    "weighted": "    o[t,h,e] = sum[s] softmax[s | s <= t](-0.5 * w * (sum[d] tanh(k[s]) * q[t] * d)) * v[s]\n",
    "shared": "    o[t,h,e] = sum[s] softmax[s | s <= t](sum[d] q[t] * k[s,0]) * v[s,0]\n",
    "two indices": "    index c over d\n    o[t,h,e] = sum[s] softmax[s | s <= t](sum[c,d] q[t] * k[s,h,c] * w) * v[s]\n",
}
OTHER = {
    "bias": "    o[t,h,e] = sum[s] softmax[s | s <= t](sum[d] q[t] * k[s] - w * (t - s)) * v[s]\n",
    "softcap": "    o[t,h,e] = sum[s] softmax[s | s <= t](tanh(sum[d] q[t] * k[s])) * v[s]\n",
    "window": "    o[t,h,e] = sum[s] softmax[s | s <= t and t - s < 3](sum[d] q[t] * k[s]) * v[s]\n",
    "strict": "    o[t,h,e] = sum[s] softmax[s | s < t](sum[d] q[t] * k[s]) * v[s]\n",
    "factor": "    o[t,h,e] = sum[s] softmax[s | s <= t](sum[d] q[t] * k[s]) * v[s] * cos(t - s)\n",
    "distance": "    o[t,h,e] = sum[s] softmax[s | s <= t](sum[d] q[t] * k[s] * cos((t - s) * d)) * v[s]\n",
}


def drawn(time: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """q, k, v and w; keys and values of unlike widths."""
    draw = torch.Generator().manual_seed(time)
    shapes = [(2, time, 3, 4), (2, time, 3, 4), (2, time, 3, 6), (1, 3)]
    return [torch.randn(s, generator=draw, dtype=dtype) for s in shapes]


def both(name: str) -> tuple[Any, Any]:
    program = seqdsl.load(HEAD + FUSED[name])
    return program.module("chunkwise"), program.module("recurrent")


@pytest.mark.parametrize("name", FUSED)
def test_inner_products_are_found(name: str) -> None:
    assert "dot_product_attention(" in seqdsl.load(HEAD + FUSED[name]).source("chunkwise")


@pytest.mark.parametrize("name", OTHER)
def test_other_scores_are_not_taken_for_them(name: str) -> None:
    text = seqdsl.load(HEAD + OTHER[name]).source("chunkwise")
    assert "dot_product_attention" not in text and "online_softmax(" in text


@pytest.mark.parametrize("time", [0, 1, 7])
@pytest.mark.parametrize("name", FUSED)
def test_values_and_gradients(name: str, time: int) -> None:
    fast, slow = both(name)
    given = [x.requires_grad_() for x in drawn(time)]
    found, wanted = fast(*given), slow(*given)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(9), dtype=found.dtype)
    slopes = [torch.autograd.grad((y * weights).sum(), given, allow_unused=True) for y in (found, wanted)]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(torch.zeros(()) if a is None else a, torch.zeros(()) if b is None else b)


@pytest.mark.parametrize("cut", [0, 1, 3, 299, 300])
def test_more_keys_than_rows_after_a_state(cut: int) -> None:
    fast, _ = both("plain")
    q, k, v, w = drawn(300)
    whole = fast(q, k, v, w)
    first, state = fast(q[:, :cut], k[:, :cut], v[:, :cut], w, return_state=True)
    second = fast(q[:, cut:], k[:, cut:], v[:, cut:], w, state=state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


@pytest.mark.parametrize("scale", [0.0, -2.0])
def test_scales_that_torch_would_multiply_masked_scores_by(scale: float) -> None:
    q, k, v, _ = (x.transpose(1, 2) if x.dim() == 4 else x for x in drawn(6))
    scores = (scale * q @ k.mT).masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), -torch.inf)
    torch.testing.assert_close(dot_product_attention(q, k, v, (2, 3), scale=scale, first=0), torch.softmax(scores, -1) @ v)


def test_it_can_be_differentiated_twice_and_mapped() -> None:
    fast, _ = both("plain")
    q, k, v, w = (x[:1] for x in drawn(4))
    assert torch.autograd.gradgradcheck(lambda *x: fast(*x, w), [x.requires_grad_() for x in (q, k, v)])
    many = torch.randn(3, *q.shape, dtype=q.dtype)
    slope = torch.func.grad(lambda x: fast(x, k.detach(), v.detach(), w).square().sum())
    torch.testing.assert_close(torch.vmap(slope)(many), torch.stack([slope(x) for x in many]))


def test_a_gradient_may_be_asked_for_twice() -> None:
    fast, _ = both("plain")
    given = [x.requires_grad_() for x in drawn(5)]
    loss = fast(*given).square().sum()
    first = torch.autograd.grad(loss, given[:3], retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, given[:3]), first)
