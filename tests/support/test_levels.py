"""Levels of random graphs against networkx, a cycle, pairs against all of them, and the sums over pairs."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from seqdsl.backends.torch_module.support.level_pairs import level_pairs
from seqdsl.backends.torch_module.support.levels import (
    _level_logsumexp,
    _level_max,
    _level_numbers,
    _level_sum,
    levels,
)


@pytest.mark.parametrize("seed", range(5))
def test_a_level_is_the_longest_path(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(0, 30, (2, 60), generator=generator)
    edges = edges[:, edges[0] > edges[1]]  # a position may wait for the same one twice
    graph = nx.DiGraph([(int(b), int(a)) for a, b in edges.T])
    graph.add_nodes_from(range(30))
    wanted = {n: k for k, layer in enumerate(nx.topological_generations(graph)) for n in layer}
    assert _level_numbers(30, *edges).tolist() == [wanted[n] for n in range(30)]


def test_no_positions_and_no_edges() -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert _level_numbers(0, none, none).tolist() == []
    assert _level_numbers(3, none, none).tolist() == [0, 0, 0]


def test_a_cycle_is_an_error() -> None:
    """No guard that is proved to order its reads makes one; who calls the function with other pairs is told."""
    with pytest.raises(ValueError, match="cycle: 2 of 3 positions"):
        _level_numbers(3, torch.tensor([0, 1]), torch.tensor([1, 0]))


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_those_with_equal_keys(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, items = (torch.randint(-1, 4, (b, n), generator=generator) for b, n in ((2, 5), (1 + seed % 2, 7)))
    found = level_pairs(rows, items, (2, 5, 7))
    wanted = (rows[:, :, None] == items[:, None]).nonzero()
    assert sorted(found.T.tolist()) == wanted.tolist()
    assert level_pairs(rows[:, :0], items, (2, 0, 7)).shape == (3, 0)
    assert level_pairs(rows, items[:, :0], (2, 5, 0)).shape == (3, 0)


def test_sums_over_pairs() -> None:
    x = torch.tensor([[1.0], [3.0], [3.0], [-torch.inf]], dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([0, 2, 2, 1])
    best = _level_max(x, rows, 4)
    assert best.flatten().tolist() == [1.0, -torch.inf, 3.0, -torch.inf]
    (slope,) = torch.autograd.grad(best[2].sum(), x)
    assert slope.flatten().tolist() == [0.0, 1.0, 0.0, 0.0]  # to the first of equal ones
    soft = _level_logsumexp(x, rows, 4)
    assert soft.flatten().tolist() == pytest.approx([1.0, -torch.inf, 3.0 + math.log(2.0), -torch.inf])
    (slope,) = torch.autograd.grad(soft[[0, 2]].sum(), x)
    assert slope.flatten().tolist() == pytest.approx([1.0, 0.5, 0.5, 0.0])
    assert _level_sum(x[:3], rows[:3], 4).flatten().tolist() == [1.0, 0.0, 6.0, 0.0]


def chain(length: int) -> list[torch.Tensor]:
    """h[t] = w[t] h[t-1] + x[t], as a graph: operands, and the result by a loop."""
    generator = torch.Generator().manual_seed(length)
    x, w, start = (
        torch.randn(2, n, 3, generator=generator, dtype=torch.float64).requires_grad_() for n in (length, length, 1)
    )
    return [x, w, start]


def run(x: torch.Tensor, w: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """The chain by levels, with one position that came before."""
    batch, time = x.shape[:2]
    every = torch.cartesian_prod(torch.arange(batch), torch.arange(time)).view(-1, 2)
    pairs = torch.stack([every[:, 0], every[:, 1], every[:, 1]])

    def step(earlier, here, there, fixed, rows, cells):  # type: ignore[no-untyped-def]
        return [_level_sum(there[0] * earlier[0], rows[0], cells) + here[0]]

    (h,) = levels(step, [start], [pairs], [(0, 0, pairs[1])], [x], [(0, w[:, :, None])], [], (batch, time))
    return h


def loop(x: torch.Tensor, w: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    state, found = start[:, 0], []
    for t in range(x.shape[1]):
        state = w[:, t] * state + x[:, t]
        found.append(state)
    return torch.stack(found, 1) if found else x


@pytest.mark.parametrize("length", [0, 1, 3])
def test_what_came_before_and_its_gradients(length: int) -> None:
    given = chain(length)
    torch.testing.assert_close(run(*given), loop(*given))
    if length:
        assert torch.autograd.gradcheck(run, given)
        assert torch.autograd.gradgradcheck(run, given)
