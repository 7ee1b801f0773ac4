"""The support function of grids, front by front, against a literal loop over cells."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from backends.torch_module.support.wavefront import wavefront

F64 = torch.float64
READS = {
    "neighbours": ([(0, 1, 0), (0, 0, 1), (0, 1, 1)], 1),
    "lags": ([(0, 2, 1), (0, 0, 2), (1, 1, 0), (0, 3, 0)], 1),
    "ahead": ([(0, 1, -1), (1, 0, 1)], 2),
    "far ahead": ([(0, 1, -2), (1, 2, -3), (0, 0, 1)], 3),
    "half steep": ([(0, 2, -2), (1, 0, 1)], 2),
}


def step(earlier: list[Tensor], given: list[Tensor]) -> list[Tensor]:
    """Two states that see each read differently."""
    mixed = sum((x / (k + 2) for k, x in enumerate(earlier)), given[0])
    return [torch.tanh(mixed) * given[1], mixed / 2 + given[1]]


def loop(
    halos: list[list[Tensor | None]], reads: list[tuple[int, int, int]], operands: list[Tensor],
    shape: tuple[int, int], margins: tuple[int, int, int], up: bool, left: bool,
) -> list[Tensor]:  # fmt: skip
    (rows, columns), (lead, before, _) = shape, margins
    operands = [x.expand(x.shape[0], *shape, *x.shape[3:]) for x in operands]
    blank = torch.zeros(2, 3, dtype=F64)
    cells: dict[tuple[int, int, int], Tensor] = {}

    def place(row: int, column: int) -> tuple[int, int]:
        return rows - 1 - row if up else row, columns - 1 - column if left else column

    def read(n: int, row: int, column: int) -> Tensor:
        if (n, row, column) in cells:
            return cells[n, row, column]
        top, corner, first, last = halos[n]
        if row < 0:
            if 0 <= column < columns:
                return blank if top is None else top[:, row + lead, place(0, column)[1]]
            return blank if corner is None else corner[:, row + lead, column + before if column < 0 else column - columns + before]
        side = first if column < 0 else last
        return blank if side is None else side[:, place(row, 0)[0], column + before if column < 0 else column - columns]

    for row, column in product(range(rows), range(columns)):
        i, j = place(row, column)
        values = step([read(n, row - d, column - e) for n, d, e in reads], [x[:, i, j] for x in operands])
        for n, value in enumerate(values):
            cells[n, row, column] = value
    found = []
    for n in range(2):
        at = {place(r, c): cells[n, r, c] for r, c in product(range(rows), range(columns))}
        found.append(torch.stack([torch.stack([at[i, j] for j in range(columns)], 1) for i in range(rows)], 1))
    return found


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize(("up", "left"), list(product((False, True), repeat=2)))
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (4, 7), (7, 3)])
def test_grid(name: str, up: bool, left: bool, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    reads, slope = READS[name]
    margins = max(d for _, d, _ in reads), max(0, *(e for *_, e in reads)), max(0, *(-e for *_, e in reads))
    (rows, columns), (lead, before, after) = shape, margins
    sides = [(lead, columns), (lead, before + after), (rows, before), (rows, after)]
    halos: list[list[Tensor | None]] = [[torch.randn(2, *side, 3, dtype=F64) for side in sides], [None, None, None, None]]
    halos[1][name != "lags"] = torch.randn(2, *sides[name != "lags"], 3, dtype=F64)
    operands = [torch.randn(2, rows, columns, 3, dtype=F64), torch.randn(1, 1, columns, 1, dtype=F64)]
    leaves = [x.requires_grad_() for x in (*operands, *(s for h in halos for s in h if s is not None and s.numel()))]
    blanks = [torch.zeros(2, 1, 3, dtype=F64)] * 2
    found = wavefront(step, blanks, halos, reads, operands, shape, slope=slope, margins=margins, up=up, left=left)
    with torch.no_grad():
        in_place = wavefront(step, blanks, halos, reads, operands, shape, slope=slope, margins=margins, up=up, left=left)
    wanted = loop(halos, reads, operands, shape, margins, up, left)
    weights = [torch.randn(2, *shape, 3, dtype=F64) for _ in wanted]
    for a, b, c in zip(found, in_place, wanted, strict=True):
        torch.testing.assert_close(a, c, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(b, c, rtol=1e-13, atol=1e-13)
    gradients = [
        torch.autograd.grad(sum((y * w).sum() for y, w in zip(ys, weights, strict=True)), leaves, materialize_grads=True)
        for ys in (found, wanted)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_no_cells(shape: tuple[int, int]) -> None:
    x = torch.randn(2, *shape, 3, dtype=F64, requires_grad=True)
    blanks = [torch.zeros(2, 1, 3, dtype=F64), torch.zeros(2, 1, dtype=torch.bool)]
    y, b = wavefront(step, blanks, [[None] * 4] * 2, READS["neighbours"][0], [x], shape)
    assert y.shape == x.shape and b.shape == x.shape[:3] and b.dtype == torch.bool
    y.sum().backward()
    assert x.grad is not None


def test_only_the_cells_of_the_grid_take_a_step() -> None:
    """An operand that is 0 outside of the grid is never divided by, and nothing is computed twice."""
    seen: list[int] = []

    def counted(earlier: list[Tensor], given: list[Tensor]) -> list[Tensor]:
        seen.append(given[0].shape[1])
        return [1 / given[0] + earlier[0]]

    x = torch.ones(1, 4, 6, 1, dtype=F64)
    wavefront(counted, [torch.zeros(1, 1, 1, dtype=F64)], [[None] * 4], [(0, 1, 0), (0, 0, 1)], [x], (4, 6))
    assert sum(seen) == 24 and len(seen) == 9 and max(seen) == 4
