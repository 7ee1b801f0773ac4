"""Feedback and reads of the same state in one pass, against a literal loop and against the two passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.chunk_solve_read import chunk_solve_read
from backends.torch_module.support.unit_inverse import unit_inverse

from .loops import check_against, decays, mixed_log_decays, normal, relative, values_and_gradients

F64 = torch.float64
Results = tuple[Tensor, Tensor, Tensor]


def both_loop(
    w: Tensor, u: Tensor, x: Tensor, q: Tensor, a: Tensor, state: Tensor, *, after: bool, strict: bool
) -> Results:
    reads, rows = [], []
    for t in range(x.shape[1]):
        before, kept = state, a[:, t, :, :, None] * state
        rows.append(x[:, t] + (w[:, t, :, :, None] * (kept if after else before)).sum(-2))
        state = kept + u[:, t, :, :, None] * rows[-1].unsqueeze(-2)
        reads.append((q[:, t, :, :, None] * (before if strict else state)).sum(-2))
    return torch.stack(reads, 1), state, torch.stack(rows, 1)


def drawn(time: int, width: int, log: bool) -> tuple[Tensor, ...]:
    w, u = 0.4 * normal(2, time, 2, 4), 0.4 * normal(2, time, 2, 4)
    x, q = normal(2, time, 2, 3), normal(2, time, 2, 4)
    return w, u, x, q, decays(log, 2, time, 2, width), normal(2, 2, 4, 3)


@pytest.mark.parametrize("time", [1, 63, 64, 130])
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("after", "strict"), [(False, False), (True, False), (False, True), (True, True)])
def test_both(time: int, width: int, log: bool, after: bool, strict: bool) -> None:
    check_against(
        lambda *given: chunk_solve_read(*given, log=log, after=after, strict=strict),
        lambda *given: both_loop(
            *given[:4], given[4].exp() if log else given[4], given[5], after=after, strict=strict
        ),
        drawn(time, width, log),
    )


def test_no_time_steps_no_start_and_one_head_for_all() -> None:
    w, u, x, q, a, start = drawn(9, 4, True)
    o, final, y = chunk_solve_read(w[:, :0], u[:, :0], x[:, :0], q[:, :0], a[:, :0], start)
    assert o.shape == y.shape == (2, 0, 2, 3) and torch.equal(final, start)
    narrow = w[:1], u[:, :, :1], x[..., :1], q, a[:, :1, :, :1]
    wide = [g.expand(s.shape) for g, s in zip(narrow, (w, u, x, q, a), strict=True)]
    wide[2] = wide[2][..., :1]
    expected = both_loop(*wide[:4], wide[4].exp(), 0 * start[..., :1], after=False, strict=False)
    for found, right in zip(chunk_solve_read(*narrow), expected, strict=True):
        assert relative(found, right) < 1e-13


@pytest.mark.parametrize("width", [1, 16])
@pytest.mark.parametrize("reset", [False, True])
def test_float32_contract_on_the_delta_rule(width: int, reset: bool) -> None:
    time = 300
    k = torch.nn.functional.normalize(normal(1, time, 2, 16), dim=-1)
    given = [-k * torch.rand(1, time, 2, 1, dtype=F64), k, normal(1, time, 2, 16), normal(1, time, 2, 16)]
    given += [mixed_log_decays(1, time, 2, width, reset=reset), normal(1, 2, 16, 16)]
    given = [x.float() for x in given]
    values, gradients = values_and_gradients(lambda *x: chunk_solve_read(*x, after=True), given, torch.float32)
    expected, exact = values_and_gradients(
        lambda *x: both_loop(*x[:4], x[4].exp(), x[5], after=True, strict=False), given, F64
    )
    assert max(relative(a, b) for a, b in zip(values, expected, strict=True)) < 2e-6
    assert max(relative(gradients[n], exact[n]) for n in (0, 1, 2, 3, 5)) < 1e-5
    gate = (gradients[4].double() - exact[4]).square().mean().sqrt()
    assert gate / exact[4].square().mean().sqrt().clamp(min=1e-3) < 1e-5


@pytest.mark.parametrize("width", [1, 4])
def test_mapped_differentiated_twice_and_compiled(width: int) -> None:
    given = drawn(9, width, False)

    def run(*given: Tensor) -> Tensor:
        o, final, y = chunk_solve_read(*given, log=False)
        return torch.cat([o.flatten(), final.flatten(), y.flatten()])

    stacked = [torch.stack([g, 0.5 * g]) for g in given]
    each = torch.stack([run(*(s[i] for s in stacked)) for i in range(2)])
    assert relative(torch.func.vmap(run)(*stacked), each) < 1e-13
    small = [g[:1, :, :1, :2].clone().requires_grad_() for g in given[:5]]
    small.append(given[5][:1, :1, :2, :2].clone().requires_grad_())
    assert torch.autograd.gradgradcheck(run, small, fast_mode=True)
    compiled = torch.compile(chunk_solve_read, fullgraph=True, backend="eager")
    check_against(compiled, chunk_solve_read, drawn(70, width, True))


@pytest.mark.parametrize("size", [1, 5, 8, 24, 33, 64])
def test_inverses_of_nearly_parallel_keys(size: int) -> None:
    """Written with a rate near 2: the inverse does not decay, and joints that are not refined lose a digit."""
    k = torch.nn.functional.normalize(torch.randn(1, 1, 64) + 0.02 * torch.randn(40, size, 64), dim=-1)
    below = 1.99 * k @ k.mT
    expected = torch.linalg.inv(torch.eye(size, dtype=F64) + below.double().tril(-1))
    assert relative(unit_inverse(below), expected) < 1.5e-6
