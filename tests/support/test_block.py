"""States in parts, whose decay is a small matrix for each key, against literal loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.block_read import block_read
from backends.torch_module.support.block_solve import block_solve

from .loops import check_against, decays, mixed_log_decays, normal, relative, values_and_gradients

F64 = torch.float64


def stepped(a: Tensor, state: Tensor) -> Tensor:
    """[B, H, P, P, 1 or K] on [B, H, P, K, V]."""
    return (a.unsqueeze(-1) * state.unsqueeze(2)).sum(3)


def solve_loop(w: Tensor, u: Tensor, x: Tensor, a: Tensor, state: Tensor) -> Tensor:
    rows = []
    for t in range(x.shape[1]):
        rows.append(x[:, t] + torch.einsum("bhrpk,bhpkv->bhrv", w[:, t], state))
        state = stepped(a[:, t], state) + torch.einsum("bhrpk,bhrv->bhpkv", u[:, t], rows[-1])
    return torch.stack(rows, 1)


def read_loop(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, state: Tensor, *, strict: bool = False
) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(v.shape[1]):
        before = state
        state = stepped(a[:, t], state) + k[:, t, ..., None] * v[:, t, :, None, None, :]
        outputs.append(torch.einsum("bhpk,bhpkv->bhv", q[:, t], before if strict else state))
    return torch.stack(outputs, 1), state


def drawn(time: int, ranks: int, parts: int, width: int, log: bool) -> tuple[Tensor, ...]:
    """For a solve; logs of mixed sizes are lowered so that the rows of a matrix sum to less than about 1."""
    w, u = 0.3 * normal(2, time, 2, ranks, parts, 4), 0.3 * normal(2, time, 2, ranks, parts, 4)
    a = decays(log, 2, time, 2, parts, parts, width)
    return w, u, normal(2, time, 2, ranks, 3), a - 0.7 if log else 0.5 * a, normal(2, 2, parts, 4, 3)


SHAPES = [(1, 1, 2, 4), (63, 1, 3, 1), (64, 2, 2, 4), (129, 1, 2, 1), (70, 3, 4, 4)]


@pytest.mark.parametrize(("time", "ranks", "parts", "width"), SHAPES)
@pytest.mark.parametrize("log", [False, True])
def test_solve(time: int, ranks: int, parts: int, width: int, log: bool) -> None:
    check_against(
        lambda *given: block_solve(*given, log=log),
        lambda w, u, x, a, s: solve_loop(w, u, x, a.exp() if log else a, s),
        drawn(time, ranks, parts, width, log),
    )


@pytest.mark.parametrize(("time", "ranks", "parts", "width"), SHAPES)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_read(time: int, ranks: int, parts: int, width: int, log: bool, strict: bool) -> None:
    w, u, x, a, start = drawn(time, 1, parts, width, log)
    check_against(
        lambda *given: block_read(*given, log=log, strict=strict),
        lambda q, k, v, a, s: read_loop(q, k, v, a.exp() if log else a, s, strict=strict),
        (w[:, :, :, 0], u[:, :, :, 0], x[:, :, :, 0], a, start),
    )


def test_the_order_of_the_matrices_is_noticed() -> None:
    """Turns of different axes do not commute: the comparison fails for their transposes, products in reverse order."""
    given = drawn(20, 1, 3, 1, False)
    with pytest.raises(AssertionError, match="value 0"):
        check_against(
            lambda w, u, x, a, s: block_solve(w, u, x, a.transpose(3, 4), s, log=False), solve_loop, given
        )


def test_no_rows_of_a_state_give_nothing() -> None:
    q, k, decay = (torch.randn(1, 3, 2, 2, *more) for more in ((0,), (0,), (2, 0)))
    assert not block_read(q, k, torch.ones(1, 1, 1, 1), decay)[0].any()


def test_nothing_and_no_start_and_broadcast() -> None:
    w, u, x, a, start = drawn(9, 1, 2, 4, True)
    assert block_solve(w[:, :0], u[:, :0], x[:, :0], a[:, :0], start).shape == (2, 0, 2, 1, 3)
    o, final = block_read(w[:, :0, :, 0], u[:, :0, :, 0], x[:, :0, :, 0], a[:, :0], start)
    assert o.shape == (2, 0, 2, 3) and torch.equal(final, start)
    assert relative(block_solve(w, u, x, a), solve_loop(w, u, x, a.exp(), 0 * start)) < 1e-13
    narrow = w[:1], u[:, :, :1], x[..., :1], a[:, :1, :1], start[:1]
    wide = [g.expand(s.shape) for g, s in zip(narrow, (w, u, x, a, start), strict=True)]
    assert relative(block_solve(*narrow), solve_loop(*wide[:3], wide[3].exp(), wide[4])) < 1e-13


def momentum(gate: Tensor, keep: Tensor) -> Tensor:
    """Logs of [[eta, 0], [eta, alpha]]."""
    none = torch.full_like(gate, -torch.inf)
    return torch.stack([torch.stack([gate, none], -2), torch.stack([gate, keep], -2)], -3)


KINDS = {
    "mixed": mixed_log_decays,
    "mixed, resets": lambda *shape: mixed_log_decays(*shape, reset=True),
    "-1e-6": lambda *shape: torch.full(shape, -1e-6, dtype=F64),
    "-1e-3": lambda *shape: torch.full(shape, -1e-3, dtype=F64),
    "-20": lambda *shape: torch.full(shape, -20.0, dtype=F64),
    "-200": lambda *shape: torch.full(shape, -200.0, dtype=F64),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 16])
def test_float32_contract_on_momentum(kind: str, width: int) -> None:
    """A memory without a decay of its own sums the velocity, which is corrected by what the memory answers."""
    time = 257
    k = torch.nn.functional.normalize(normal(1, time, 2, 1, 16), dim=-1)
    beta = 0.3 * torch.rand(1, time, 2, 1, 1, dtype=F64)
    none = torch.zeros_like(k)
    w, u = torch.stack([none, -k * beta], 4), torch.stack([k, k], 4)
    gate = KINDS[kind](1, time, 2, width) - (0.3 if kind == "mixed" else 0)
    keep = KINDS[kind](1, time, 2, width)
    x, start = normal(1, time, 2, 1, 16), normal(1, 2, 2, 16, 16)

    def run(solve: object, read: object, *given: Tensor) -> tuple[Tensor, ...]:
        w, u, x, gate, keep, start = given
        a = momentum(gate, keep)
        y = solve(w, u, x, a, start)  # type: ignore[operator]
        o, final = read(w[:, :, :, 0], u[:, :, :, 0], y[:, :, :, 0], a, start)  # type: ignore[operator]
        return y, o, final

    given = [g.float() for g in (w, u, x, gate, keep, start)]
    values, gradients = values_and_gradients(lambda *g: run(block_solve, block_read, *g), given, torch.float32)
    expected, exact = values_and_gradients(
        lambda *g: run(
            lambda w, u, x, a, s: solve_loop(w, u, x, a.exp(), s),
            lambda q, k, v, a, s: read_loop(q, k, v, a.exp(), s),
            *g,
        ),
        given,
        F64,
    )
    assert max(relative(x, y) for x, y in zip(values, expected, strict=True)) < 2e-6
    assert max(relative(gradients[n], exact[n]) for n in (0, 1, 2, 5)) < 1e-5
    for n in (3, 4):
        error = (gradients[n].double() - exact[n]).square().mean().sqrt()
        scale = max(exact[n].square().mean(), (given[0].double() * exact[0]).square().mean()) ** 0.5
        assert error / scale < 1e-5 or error < 1e-30


def test_sixteen_bits_run_in_float32() -> None:
    given = [x.bfloat16().requires_grad_() for x in drawn(70, 1, 2, 4, True)]
    y = block_solve(*given)
    w, u, x, a, s = (g.detach().double() for g in given)
    assert y.dtype == torch.float32 and relative(y, solve_loop(w, u, x, a.exp(), s)) < 2e-6
    y.sum().backward()
    assert all(g.grad is not None and g.grad.dtype == torch.bfloat16 and g.grad.isfinite().all() for g in given)


def test_complex() -> None:
    w, u, x = (0.3 * torch.randn(1, 33, 2, 1, *rest, dtype=torch.complex128) for rest in ((2, 3), (2, 3), (4,)))
    a = 0.4 * torch.randn(1, 33, 2, 2, 2, 3, dtype=torch.complex128)
    start = torch.randn(1, 2, 2, 3, 4, dtype=torch.complex128)
    check_against(lambda *given: block_solve(*given, log=False), solve_loop, (w, u, x, a, start))


def test_mapped_differentiated_twice_and_compiled() -> None:
    given = drawn(9, 1, 2, 4, False)
    stacked = [torch.stack([g, 0.5 * g]) for g in given]

    def run(*given: Tensor) -> Tensor:
        return block_solve(*given, log=False)

    each = torch.stack([run(*(s[i] for s in stacked)) for i in range(2)])
    assert relative(torch.func.vmap(run)(*stacked), each) < 1e-13
    small = [g[:1, :, :1].clone().requires_grad_() for g in given[:4]] + [given[4][:1, :1].clone().requires_grad_()]
    assert torch.autograd.gradgradcheck(run, small, fast_mode=True)
    check_against(torch.compile(block_solve, fullgraph=True, backend="eager"), block_solve, drawn(70, 1, 2, 1, True))
