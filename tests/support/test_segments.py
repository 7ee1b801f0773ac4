"""Long or wide batches are cut into segments: the same values and gradients as a literal loop has."""

from __future__ import annotations

import math

import pytest
import torch

from backends.torch_module.support import chunk_linear_attention as attention
from backends.torch_module.support import chunk_solve_read as solve_read
from backends.torch_module.support import segments as cut

from .loops import attention_loop, check_against, decays, normal
from .test_solve_read import both_loop

SHAPES = [(1, 8 * 520 + 5, 1), (2, 419, 5), (3, 33, 70), (130, 40, 1)]  # B, T, H, in chunks of 8


@pytest.mark.parametrize(("batch", "time", "heads"), [*SHAPES, (1, 0, 3), (1, 8, 1), (1, 64 * 64, 96)])
def test_segments_cover_everything_once(batch: int, time: int, heads: int) -> None:
    for size in (8, 64):
        lanes, parts = cut.segments(torch.empty(batch, time, heads), size)
        seen = torch.zeros(batch, time, heads)
        for b, h in lanes:
            for t in parts:
                seen[b, t, h] += 1
                assert seen[b, t, h].numel() == 0 or t.start % size == 0
        assert torch.equal(seen, torch.ones_like(seen))
    if (batch, time, heads) in SHAPES:
        assert math.prod(map(len, cut.segments(torch.empty(batch, time, heads), 8))) > 1
    assert cut.segments(torch.empty(batch, time, heads, device="meta"), 8)[1] == [slice(0, time)]


@pytest.fixture(params=[0, 32768])
def _kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an adjoint wants is computed again, or kept."""
    monkeypatch.setattr(cut, "KEPT", request.param)


@pytest.mark.usefixtures("_kept")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("width", "columns"), [(1, False), (3, False), (2, True)])
def test_attention(shape: tuple[int, int, int], width: int, columns: bool) -> None:
    q, k, v = normal(*shape, 3), normal(*shape, 3), normal(*shape, 2)
    given = q, k, v, decays(True, *shape, width), normal(shape[0], shape[2], 3, 2)
    check_against(
        lambda *x: attention.chunk_linear_attention(*x, columns=columns, chunk=8),
        lambda q, k, v, a, s: attention_loop(q, k, v, a.exp(), s, columns=columns),
        given,
    )


@pytest.mark.usefixtures("_kept")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [1, 3])
def test_solve_and_read(shape: tuple[int, int, int], width: int) -> None:
    w, u = 0.4 * normal(*shape, 3), 0.4 * normal(*shape, 3)
    given = w, u, normal(*shape, 2), normal(*shape, 3), decays(True, *shape, width), normal(shape[0], shape[2], 3, 2)
    check_against(
        lambda *x: solve_read.chunk_solve_read(*x, chunk=8),
        lambda *x: both_loop(*x[:4], x[4].exp(), x[5], after=False, strict=False),
        given,
    )
