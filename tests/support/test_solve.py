"""Feedback through a decaying state, against a literal loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.chunk_solve import chunk_solve

from .loops import check_against, decays, mixed_log_decays, normal, relative, values_and_gradients

F64 = torch.float64


def solve_loop(w: Tensor, u: Tensor, x: Tensor, a: Tensor, state: Tensor, *, after: bool) -> Tensor:
    rows = []
    for t in range(x.shape[1]):
        kept = a[:, t, :, :, None] * state
        read = kept if after else state
        rows.append(x[:, t] + (w[:, t, :, :, :, None] * read.unsqueeze(2)).sum(-2))
        state = kept + (u[:, t, :, :, :, None] * rows[-1].unsqueeze(-2)).sum(2)
    return torch.stack(rows, 1)


def drawn(time: int, ranks: int, width: int, log: bool, *, size: float = 0.4) -> tuple[Tensor, ...]:
    w, u = size * normal(2, time, 2, ranks, 4), size * normal(2, time, 2, ranks, 4)
    return w, u, normal(2, time, 2, ranks, 3), decays(log, 2, time, 2, width), normal(2, 2, 4, 3)


@pytest.mark.parametrize(("time", "ranks"), [(1, 1), (63, 1), (64, 2), (129, 1), (70, 3)])
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_solve(time: int, ranks: int, width: int, log: bool, after: bool) -> None:
    check_against(
        lambda *given: chunk_solve(*given, log=log, after=after),
        lambda w, u, x, a, s: solve_loop(w, u, x, a.exp() if log else a, s, after=after),
        drawn(time, ranks, width, log),
    )


def test_no_time_steps_and_no_start() -> None:
    w, u, x, a, start = drawn(9, 1, 4, True)
    assert chunk_solve(w[:, :0], u[:, :0], x[:, :0], a[:, :0], start).shape == (2, 0, 2, 1, 3)
    expected = solve_loop(w, u, x, a.exp(), torch.zeros_like(start), after=False)
    assert relative(chunk_solve(w, u, x, a), expected) < 1e-13
    assert relative(chunk_solve(w, u, x), solve_loop(w, u, x, torch.ones_like(a), 0 * start, after=False)) < 1e-13


DECAYS = {
    "mixed": mixed_log_decays,
    "mixed, resets": lambda *shape: mixed_log_decays(*shape, reset=True),
    "0": lambda *shape: torch.zeros(shape, dtype=F64),
    "-1e-6": lambda *shape: torch.full(shape, -1e-6, dtype=F64),
    "-20": lambda *shape: torch.full(shape, -20.0, dtype=F64),
    "-200": lambda *shape: torch.full(shape, -200.0, dtype=F64),
}


@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("width", [1, 16])
@pytest.mark.parametrize("after", [False, True])
def test_float32_contract_on_the_delta_rule(kind: str, width: int, after: bool) -> None:
    time = 300
    k = torch.nn.functional.normalize(normal(1, time, 2, 1, 16), dim=-1)
    beta = torch.rand(1, time, 2, 1, 1, dtype=F64)
    given = [-k * beta, k, normal(1, time, 2, 1, 16), DECAYS[kind](1, time, 2, width), normal(1, 2, 16, 16)]
    given = [x.float() for x in given]
    values, gradients = values_and_gradients(lambda *x: chunk_solve(*x, after=after), given, torch.float32)
    expected, exact = values_and_gradients(
        lambda w, u, x, g, s: solve_loop(w, u, x, g.exp(), s, after=after), given, F64
    )
    assert relative(values[0], expected[0]) < 2e-6
    assert max(relative(gradients[n], exact[n]) for n in (0, 1, 2, 4)) < 1e-5
    gate = (gradients[3].double() - exact[3]).square().mean().sqrt()
    scale = max(exact[3].square().mean(), (given[0].double() * exact[0]).square().mean()) ** 0.5
    assert gate / scale < 1e-5 or gate < 1e-30


def test_equal_keys_do_not_blow_up() -> None:
    """Powers of the system grow binomially; substitution does not form them."""
    k = torch.nn.functional.normalize(torch.ones(1, 200, 1, 1, 16), dim=-1)
    for beta in (1.0, 1.9):
        given = -beta * k, k, torch.randn(1, 200, 1, 1, 8), torch.zeros(1, 200, 1, 1), torch.zeros(1, 1, 16, 8)
        expected = solve_loop(*(x.double() for x in given[:3]), torch.ones(1, 200, 1, 1), given[4].double(), after=True)
        assert relative(chunk_solve(*given, after=True), expected) < 5e-6


def test_sixteen_bits_run_in_float32() -> None:
    given = [x.bfloat16().requires_grad_() for x in drawn(70, 1, 4, True)]
    y = chunk_solve(*given)
    w, u, x, a, s = (g.detach().double() for g in given)
    assert y.dtype == torch.float32 and relative(y, solve_loop(w, u, x, a.exp(), s, after=False)) < 2e-6
    y.sum().backward()
    assert all(g.grad is not None and g.grad.dtype == torch.bfloat16 and g.grad.isfinite().all() for g in given)


def test_complex_and_broadcast() -> None:
    w, u, x, a = (0.4 * torch.randn(2, 33, 2, 1, 3, dtype=torch.complex128) for _ in range(4))
    start = torch.randn(2, 2, 3, 3, dtype=torch.complex128)
    check_against(
        lambda *given: chunk_solve(*given, log=False),
        lambda w, u, x, a, s: solve_loop(w, u, x, a, s, after=False),
        (w, u, x, a[:, :, :, 0], start),
    )
    w, u, x, a, start = drawn(20, 2, 4, True)
    narrow = w[:1], u[:, :, :1], x[:, :, :, :1], a[:, :1, :, :1], start[:1]
    wide = [
        g.expand(s.shape)
        for g, s in zip(narrow, (w, u, x, a, start), strict=True)
    ]
    expected = solve_loop(wide[0], wide[1], wide[2], wide[3].exp(), wide[4], after=False)
    assert relative(chunk_solve(*narrow), expected) < 1e-13


@pytest.mark.parametrize("width", [1, 4])
def test_mapped_and_differentiated_twice(width: int) -> None:
    given = drawn(9, 1, width, False)
    stacked = [torch.stack([g, 0.5 * g]) for g in given]

    def run(*given: Tensor) -> Tensor:
        return chunk_solve(*given, log=False)

    each = torch.stack([run(*(s[i] for s in stacked)) for i in range(2)])
    assert relative(torch.func.vmap(run)(*stacked), each) < 1e-13
    small = [g[:1, :9, :1, ..., :2].clone().requires_grad_() for g in given[:3]]
    small += [given[3][:1, :9, :1, :2].clone().requires_grad_(), given[4][:1, :1, :2, :2].clone().requires_grad_()]
    assert torch.autograd.gradgradcheck(run, small, fast_mode=True)


@pytest.mark.parametrize("width", [1, 4])
def test_compiled_whole(width: int) -> None:
    compiled = torch.compile(chunk_solve, fullgraph=True, backend="eager")
    check_against(compiled, chunk_solve, drawn(70, 2, width, True))


def test_a_wrong_system_is_noticed() -> None:
    """The comparison can fail: a read after the decay where it stands before, a write that a step reads itself."""
    given = drawn(70, 1, 4, True)
    with pytest.raises(AssertionError, match="value 0"):
        check_against(
            lambda *x: chunk_solve(*x, after=True),
            lambda w, u, x, a, s: solve_loop(w, u, x, a.exp(), s, after=False),
            given,
        )
