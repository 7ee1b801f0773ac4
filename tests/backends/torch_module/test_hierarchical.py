"""Modules in the form hierarchical against the stepped ones: values, states and gradients, in pieces, steps and packed; the laws
that its blocks obey, in exact numbers; decays of every size; and mutants of the support function."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from seqdsl.backends.torch_module.support.grid_scan import _grid_joined, grid_scan

from seqdsl.forms import derive
from seqdsl.semantics import load_system
from tests.backends.torch_module.harness import module_of
from tests.backends.torch_module.test_wavefront import (
    DECAYED,
    check_decays_of_every_size,
    check_double_backward_vmap_and_compile,
    check_resumes,
    check_steps_and_packed,
    passes,
    results,
    tensors_of,
    worst,
)
from tests.forms.test_hierarchical import BLOCKS, SHAPES, STEPPABLE

MORE_SHAPES = [*SHAPES, (8, 8), (13, 3), (3, 11)]


def pair(text: str) -> tuple[Any, Any]:
    """The module by blocks and the stepped one."""
    blocks, stepped = (module_of(derive(load_system(text), f).system, f) for f in ("hierarchical", "recurrent"))
    return blocks, stepped


@pytest.mark.parametrize("name", BLOCKS)
def test_values_states_and_gradients(name: str) -> None:
    blocks, stepped = pair(BLOCKS[name])
    for rows, columns in MORE_SHAPES:
        inputs = tensors_of(BLOCKS[name], rows, columns)
        found, wanted = (results(m, inputs, steppable=name in STEPPABLE) for m in (blocks, stepped))
        assert worst(found, wanted) < 1e-11, (rows, columns)


@pytest.mark.parametrize("name", STEPPABLE)
def test_a_state_goes_on_in_the_other_form(name: str) -> None:
    check_resumes(BLOCKS[name], pair(BLOCKS[name]), 7)


@pytest.mark.parametrize("name", ["entrywise", "states on edges", "a matrix"])
def test_steps_and_packed_sequences(name: str) -> None:
    check_steps_and_packed(BLOCKS[name], *pair(BLOCKS[name]))


def test_float32_with_decays_of_every_size() -> None:
    check_decays_of_every_size(*pair(DECAYED))


@pytest.mark.parametrize("name", ["entrywise", "of one coefficient for all"])
def test_double_backward_vmap_and_compile(name: str) -> None:
    check_double_backward_vmap_and_compile(BLOCKS[name], *pair(BLOCKS[name]))


def cells(rows: int, columns: int, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """The blocks of one cell of a grid, with small integers: maps and what leaves them."""
    generator = torch.Generator().manual_seed(rows + 10 * columns)
    a, c, b = (torch.randint(-2, 3, (rows, columns, 1, n, m), generator=generator).double() for m in (n, n, 3))
    step = torch.cat([a, c], -1)
    return torch.cat([step, step], -2), torch.cat([b, b], -2)


def join(blocks: list[Any], axis: int) -> Any:
    """Two blocks (maps, what leaves, sizes of the two parts) as one."""
    (m1, e1, s1), (m2, e2, s2) = blocks
    assert s1[axis] == s2[axis]
    width = s1[1 - axis]
    assert s2[1 - axis] == width
    maps, leaving = _grid_joined(m1, m2, e1, e2, s1, axis)
    return maps, leaving, [2 * width if k != axis else s for k, s in enumerate(s1)]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_square_of_blocks_is_the_same_either_way(axis: int) -> None:
    """Rows first or columns first, exactly: of cells, and of the blocks of four that they make."""
    n = 2
    maps, leaving = cells(4, 4, n)
    grid = [[(maps[i : i + 1, j : j + 1], leaving[i : i + 1, j : j + 1], [n, n]) for j in range(4)] for i in range(4)]
    while len(grid) > 1:
        found = []
        for upper, lower in zip(grid[::2], grid[1::2], strict=True):
            found.append([])
            for j in range(0, len(upper), 2):
                rows = [join(pair[j : j + 2], 1) for pair in (upper, lower)]
                columns = [join([upper[k], lower[k]], 0) for k in (j, j + 1)]
                across, along = join(rows, 0), join(columns, 1)
                assert torch.equal(across[0], along[0]) and torch.equal(across[1], along[1])
                found[-1].append(across if axis else along)
        grid = found


def test_a_block_is_what_its_cells_do_one_after_another() -> None:
    """The homomorphism, exactly: the map of four cells in a row, applied, is the four steps."""
    n = 2
    maps, leaving = cells(1, 4, n)
    parts = [(maps[:, j : j + 1], leaving[:, j : j + 1], [n, n]) for j in range(4)]
    whole = join([join(parts[:2], 1), join(parts[2:], 1)], 1)
    generator = torch.Generator().manual_seed(5)
    above = torch.randint(-2, 3, (4, n, 3), generator=generator).double()
    state = left = torch.randint(-2, 3, (n, 3), generator=generator).double()
    below = []
    for j in range(4):
        step = maps[0, j, 0, :n]
        state = step[:, :n] @ above[j] + step[:, n:] @ state + leaving[0, j, 0, :n]
        below.append(state)
    found = whole[0][0, 0, 0] @ torch.cat([above.flatten(0, 1), left]) + whole[1][0, 0, 0]
    assert torch.equal(found, torch.cat([*below, state]))


def test_the_depth_is_logarithmic() -> None:
    """As many operations again for each doubling of a side, and not twice as many."""
    counts = []
    for rows in (32, 64, 128, 256):
        given = [torch.rand(1, rows, 8, 1, 1, m) / 2 for m in (1, 1, 3)]
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as run:
            grid_scan(*given)
        counts.append(sum(e.count for e in run.key_averages()))
    first, *others = (b - a for a, b in pairwise(counts))
    assert all(abs(n - first) <= first // 3 for n in others) and first < counts[0] // 2


MUTANTS = {
    "gradients without transposition": ("a, c = a.mT.conj(), c.mT.conj()", "a, c = a, c"),
    "gradients with the matrices of the cell itself": ("a.roll(-1, 0), c.roll(-1, 1)", "a, c"),
    "gradients by the state after": ("torch.cat([top.unsqueeze(0), h[:-1]])", "h"),
    "no gradient of what lies before": ("a[0].mT.conj() @ d_b[0]", "0 * (a[0].mT.conj() @ d_b[0])"),
    "the shared part exchanged": ("return parts[k], parts[1 - k]", "return parts[1 - k], parts[k]"),
    "what passes both blocks, forgotten": ("through[..., shared, kept], through[..., shared, shared]",
                                           "through[..., shared, kept], 0 * through[..., shared, shared]"),
    "no way from the first block's top to the second's bottom": ("maps[..., at[1], end] = through[..., kept, kept],",
                                                                "maps[..., at[1], end] = 0 * through[..., kept, kept],"),
    "the first block's edge does not enter the second": ("moved = two + _grid_times(", "moved = two + 0 * _grid_times("),
    "a second block entered from outside": ("between = _grid_times(through, entering) + value", "between = edges[axis]"),
    "what leaves the first block without its writes": ("_grid_times(through, entering) + value", "_grid_times(through, entering)"),
    "halves exchanged": ("one, two = edges[1 - axis].chunk(2, -2)", "two, one = edges[1 - axis].chunk(2, -2)"),
    "an edge that is not put in": ("_grid_times(maps[..., other, part], entering)", "0"),
    "rows that are not turned round": ("flips = [k for k, flag in enumerate((up, back)) if flag]", "flips = [1] * back"),
    "an edge that is not turned round": (".flip([0] if up else [])", ""),
    "one column of two": ("torch.addcmul(p[..., :1] * x[..., :1, :], p[..., 1:], x[..., 1:, :])", "p[..., :1] * x[..., :1, :]"),
}  # fmt: skip


SHOWN = {name: BLOCKS[name] for name in ("entrywise", "up and left", "edges", "a matrix", "of one coefficient for all")}


def test_the_function_itself_passes() -> None:
    assert passes(("def grid_scan(", "def grid_scan("), SHOWN, "hierarchical")


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str) -> None:
    assert not passes(MUTANTS[name], SHOWN, "hierarchical")
