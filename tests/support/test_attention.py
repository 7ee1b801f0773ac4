"""Decayed products inside chunks, and chunked linear attention, against literal loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.chunk_linear_attention import chunk_linear_attention
from backends.torch_module.support.chunk_states import chunk_states, chunk_states_adjoint
from backends.torch_module.support.decay_apply import decay_apply
from backends.torch_module.support.decay_gram import decay_gram

from .loops import (
    apply_loop,
    attention_loop,
    check_against,
    decays,
    gram_loop,
    mixed_log_decays,
    normal,
    relative,
    values_and_gradients,
)

F64 = torch.float64
FORMS = {"none": (0, False), "shared": (1, False), "rows": (3, False), "columns": (4, True)}


@pytest.mark.parametrize("size", [1, 7, 8, 19])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("width", [1, 3])
def test_gram(size: int, log: bool, strict: bool, width: int) -> None:
    given = normal(2, size, 3), normal(2, size, 3), decays(log, 2, size, width)
    if strict and size == 1:
        assert decay_gram(*given, log=log, strict=True).abs().max() == 0
        return
    check_against(
        lambda q, k, a: decay_gram(q, k, a, log=log, strict=strict),
        lambda q, k, a: gram_loop(q, k, (a.exp() if log else a).expand_as(q), strict=strict),
        given,
    )


@pytest.mark.parametrize("size", [1, 7, 8, 19])
@pytest.mark.parametrize("log", [False, True])
def test_apply(size: int, log: bool) -> None:
    given = normal(2, size, size).tril(), normal(2, size, 3), decays(log, 2, size, 3)
    check_against(
        lambda w, v, a: decay_apply(w, v, a, log=log),
        lambda w, v, a: apply_loop(w.tril(), v, a.exp() if log else a),
        given,
    )


def test_products_in_chunks_broadcast_and_take_complex() -> None:
    q, k, a = normal(2, 4, 9, 3), normal(4, 9, 3), decays(False, 1, 9, 3)
    assert relative(decay_gram(q, k, a), gram_loop(q, k.expand_as(q), a.expand_as(q))) < 1e-13
    w, v = normal(4, 9, 9).tril(), normal(2, 1, 9, 3)
    expected = apply_loop(w.expand(2, 4, 9, 9), v.expand(2, 4, 9, 3), a.expand(2, 4, 9, 3))
    assert relative(decay_apply(w, v, a), expected) < 1e-13
    q, k, a = (torch.randn(2, 5, 3, dtype=torch.complex128) for _ in range(3))
    assert relative(decay_gram(q, k, a), gram_loop(q, k, a)) < 1e-13
    assert decay_gram(q[:, :0], k[:, :0], a[:, :0]).shape == (2, 0, 0)
    assert decay_apply(w[:, :0, :0], v[0, :, :0], torch.ones(0, 3)).shape == (4, 0, 3)


def test_products_in_chunks_map_and_differentiate_twice() -> None:
    q, k, a, w = normal(3, 2, 3, 2), normal(3, 2, 3, 2), normal(3, 2, 3, 2), normal(3, 2, 3, 3).tril()
    assert torch.equal(torch.func.vmap(decay_gram)(q, k, a), decay_gram(q, k, a))
    assert torch.equal(torch.func.vmap(decay_apply, (0, 0, None))(w, k, a[0]), decay_apply(w, k, a[:1]))
    small = [x[0].requires_grad_() for x in (q, k, a)]
    assert torch.autograd.gradgradcheck(decay_gram, small, fast_mode=True)
    small[0] = w[0].requires_grad_()
    assert torch.autograd.gradgradcheck(lambda w, v, a: decay_apply(w.tril(), v, a), small, fast_mode=True)


@pytest.mark.parametrize("time", [1, 63, 64, 65, 257])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_attention(time: int, form: str, log: bool, strict: bool) -> None:
    width, columns = FORMS[form]
    if strict and time not in (1, 65):
        time = 65
    q, k, v = normal(2, time, 2, 3), normal(2, time, 2, 3), normal(2, time, 2, 4)
    decay = decays(log, 2, time, 2, width) if width else None
    start = normal(2, 2, 3, 4) if strict or time == 257 else None

    def loop(q: Tensor, k: Tensor, v: Tensor, a: Tensor | None, s: Tensor | None) -> tuple[Tensor, Tensor]:
        return attention_loop(q, k, v, a.exp() if log and a is not None else a, s, strict=strict, columns=columns)

    check_against(
        lambda *x: chunk_linear_attention(*x, log=log, strict=strict, columns=columns), loop, (q, k, v, decay, start)
    )
    if start is None:
        found = chunk_linear_attention(q, k, v, decay, log=log, strict=strict, columns=columns)
        assert all(relative(x, y) < 1e-11 for x, y in zip(found, loop(q, k, v, decay, None), strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_no_time_steps(form: str) -> None:
    width, columns = FORMS[form]
    q, k, v, start = normal(2, 0, 2, 3), normal(2, 0, 2, 3), normal(2, 0, 2, 4), normal(2, 2, 3, 4).requires_grad_()
    decay = normal(2, 0, 2, width) if width else None
    o, final = chunk_linear_attention(q, k, v, decay, start, columns=columns, strict=columns)
    assert o.shape == (2, 0, 2, 4) and torch.equal(final, start)
    final.sum().backward()
    assert torch.equal(start.grad, torch.ones_like(start))


def gate_error(found: list[Tensor], expected: list[Tensor], q: Tensor) -> float:
    """A decay's gradient counts relative to the larger of its own size and that of q d_q."""
    scale = max(expected[3].square().mean(), (q * expected[0]).square().mean()) ** 0.5
    return float((found[3].double() - expected[3]).square().mean().sqrt() / scale)


DECAYS = {
    "mixed": mixed_log_decays,
    "mixed, resets": lambda *shape: mixed_log_decays(*shape, reset=True),
    "0": lambda *shape: torch.zeros(shape, dtype=F64),
    "-1e-6": lambda *shape: torch.full(shape, -1e-6, dtype=F64),
    "-20": lambda *shape: torch.full(shape, -20.0, dtype=F64),
    "-200": lambda *shape: torch.full(shape, -200.0, dtype=F64),
    "U(-200,0)": lambda *shape: -200 * torch.rand(*shape, dtype=F64),
    "growth": lambda *shape: 0.2 * torch.rand(*shape, dtype=F64) - 0.1,
}


@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("width", [1, 16])
def test_float32_contract(kind: str, width: int) -> None:
    time = 300
    q, k, v = normal(1, time, 2, 16), normal(1, time, 2, 16), normal(1, time, 2, 16)
    given = q.float(), k.float(), v.float(), DECAYS[kind](1, time, 2, width).float(), normal(1, 2, 16, 16).float()
    values, gradients = values_and_gradients(chunk_linear_attention, given, torch.float32)
    expected, exact = values_and_gradients(lambda q, k, v, g, s: attention_loop(q, k, v, g.exp(), s), given, F64)
    assert max(relative(x, y) for x, y in zip(values, expected, strict=True)) < 2e-6
    assert gate_error(gradients, exact, given[0].double()) < 1e-5
    assert max(relative(gradients[n], exact[n]) for n in (0, 1, 2, 4)) < 1e-5


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("columns", [False, True])
def test_slow_decays_do_not_drift_in_float32(width: int, columns: bool) -> None:
    q, k, v = (torch.randn(1, 4096, 1, 8) for _ in range(3))
    g = torch.full((1, 4096, 1, width), -5e-7)
    o, _ = chunk_linear_attention(q, k, v, g, columns=columns)
    expected, _ = attention_loop(*(x.double() for x in (q, k, v)), g.double().exp(), None, columns=columns)
    assert relative(o, expected) < 2e-6


@pytest.mark.parametrize("width", [1, 3])
def test_sixteen_bits_run_in_float32(width: int) -> None:
    q, k, v = (normal(2, 70, 2, 3).bfloat16() for _ in range(3))
    g = mixed_log_decays(2, 70, 2, width).bfloat16().requires_grad_()
    o, final = chunk_linear_attention(q, k, v, g)
    assert o.dtype == final.dtype == torch.float32
    expected, _ = attention_loop(q.double(), k.double(), v.double(), g.detach().double().exp(), None)
    assert relative(o, expected) < 2e-6
    o.sum().backward()
    assert g.grad is not None and g.grad.dtype == torch.bfloat16 and torch.isfinite(g.grad).all()


def test_no_rows_of_a_state_with_complex_writes() -> None:
    q, k, v = torch.ones(1, 3, 2, 0), torch.ones(1, 3, 1, 1), torch.ones(1, 3, 2, 4, dtype=torch.complex64)
    o, final = chunk_linear_attention(q, k, v, torch.zeros(1, 1, 1, 1))
    assert not o.any() and o.shape == (1, 3, 2, 4) and final.shape == (1, 2, 0, 4)


def test_complex() -> None:
    q, k, v, a = (torch.randn(2, 66, 2, 3, dtype=torch.complex128) * 0.7 for _ in range(4))
    for decay in (a, a[..., :1]):
        check_against(
            lambda *x: chunk_linear_attention(*x, log=False), lambda q, k, v, a: attention_loop(q, k, v, a, None),
            (q, k, v, decay),
        )


@pytest.mark.parametrize("shape", [(1, 1, 2, 1), (2, 66, 1, 3), (1, 66, 2, 1)])
def test_broadcast_decay(shape: tuple[int, ...]) -> None:
    q, k, v = normal(2, 66, 2, 3), normal(2, 66, 2, 3), normal(2, 66, 2, 4)
    check_against(
        chunk_linear_attention,
        lambda q, k, v, g: attention_loop(q, k, v, g.exp().expand(2, 66, 2, -1), None),
        (q, k, v, decays(True, *shape)),
    )


@pytest.mark.parametrize("width", [1, 3])
def test_a_state_may_be_handed_on_at_any_step(width: int) -> None:
    q, k, v, g = normal(1, 90, 2, 3), normal(1, 90, 2, 3), normal(1, 90, 2, 4), decays(True, 1, 90, 2, width)
    o, final = chunk_linear_attention(q, k, v, g)
    for cut in (1, 37, 64):
        first, state = chunk_linear_attention(*(x[:, :cut] for x in (q, k, v, g)))
        second, last = chunk_linear_attention(*(x[:, cut:] for x in (q, k, v, g)), state)
        assert relative(torch.cat([first, second], 1), o) < 1e-12 and relative(last, final) < 1e-12


@pytest.mark.parametrize("width", [1, 3])
def test_mapped_and_differentiated_twice(width: int) -> None:
    q, k, v, g, s = normal(3, 1, 9, 1, 3), normal(3, 1, 9, 1, 3), normal(3, 1, 9, 1, 2), -torch.rand(
        3, 1, 9, 1, width, dtype=F64), normal(1, 1, 3, 2)
    mapped = torch.func.vmap(chunk_linear_attention, (0, 0, 0, 0, None))(q, k, v, g, s)
    each = [chunk_linear_attention(q[i], k[i], v[i], g[i], s) for i in range(3)]
    assert all(relative(mapped[n], torch.stack([x[n] for x in each])) < 1e-13 for n in (0, 1))

    def loss(g: Tensor, q: Tensor) -> Tensor:
        return chunk_linear_attention(q, k[0], v[0], g, s)[0].square().sum()

    found = torch.func.vmap(torch.func.grad(loss))(g, q)
    assert relative(found, torch.stack([torch.func.grad(loss)(g[i], q[i]) for i in range(3)])) < 1e-12
    given = [x[0].requires_grad_() for x in (q, k, v, g)]
    assert torch.autograd.gradgradcheck(chunk_linear_attention, given, fast_mode=True)


@pytest.mark.parametrize("width", [1, 3])
def test_compiled_whole(width: int) -> None:
    compiled = torch.compile(chunk_linear_attention, fullgraph=True, backend="eager")
    given = normal(1, 70, 2, 3), normal(1, 70, 2, 3), normal(1, 70, 2, 4), decays(True, 1, 70, 2, width)
    check_against(compiled, chunk_linear_attention, given)


class _Attention(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return chunk_linear_attention(q, k, v, g)[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_exported_for_any_length() -> None:
    time = torch.export.Dim("time", min=2, max=100_000)
    example = tuple(torch.randn(1, 130, 2, 3) for _ in range(3)) + (-torch.rand(1, 130, 2, 3),)
    exported = torch.export.export(_Attention(), example, dynamic_shapes=({1: time},) * 4).module()
    for length in (2, 257):
        given = tuple(torch.randn(1, length, 2, 3) for _ in range(3)) + (-torch.rand(1, length, 2, 3),)
        assert relative(exported(*given), chunk_linear_attention(*given)[0]) < 1e-5


def test_a_wrong_gate_is_noticed() -> None:
    """The comparison itself can fail: a decay applied after the write, or a float32 difference of long sums."""
    q, k, v, g = normal(1, 70, 1, 3), normal(1, 70, 1, 3), normal(1, 70, 1, 4), decays(True, 1, 70, 1, 3)
    with pytest.raises(AssertionError, match="value 0"):
        check_against(
            lambda q, k, v, g: chunk_linear_attention(q, k * g.exp(), v, g),
            lambda q, k, v, g: attention_loop(q, k, v, g.exp(), None),
            (q, k, v, g),
        )


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 24, 39])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 2)])
def test_states_between_chunks_in_groups_and_in_turn(count: int, shape: tuple[int, int]) -> None:
    totals = torch.rand(count, 2, *shape, dtype=F64) * (torch.rand(count, 2, *shape) > 0.2)  # some forget all
    writes = torch.randn(count + 1, 2, 3, 2, dtype=F64)
    there, back = writes.clone(), writes.clone()
    for n in range(count):
        there[n + 1] += totals[n] * there[n]
        back[count - n - 1] += totals[count - n - 1] * back[count - n]
    found, again = writes.clone(), writes.clone()
    chunk_states(found, totals, totals.log() if count == 1 else None)
    chunk_states_adjoint(again, totals)
    assert relative(found, there) < 1e-15 and relative(again, back) < 1e-15
