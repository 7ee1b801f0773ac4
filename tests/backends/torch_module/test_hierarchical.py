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
from tests.backends.torch_module.harness import gap, module_of, piece
from tests.backends.torch_module.test_wavefront import DECAYED, as_leaves, passes, results, tensors_of, worst
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
    """It is the same record, and its gradients are the same."""
    system = load_system(BLOCKS[name])
    blocks, stepped = pair(BLOCKS[name])
    inputs = tensors_of(BLOCKS[name], 7, 3)
    head, tail = ([x.detach() for x in piece(system, inputs, *cut)] for cut in ((0, 2), (2, 7)))
    states = [m(*head, return_state=True)[1] for m in (blocks, stepped)]
    assert gap(*states) < 1e-12
    tail = [x.requires_grad_(x.is_floating_point()) for x in tail]
    start = as_leaves(states[1])
    assert worst(*(results(m, tail, start) for m in (blocks, stepped))) < 1e-12


@pytest.mark.parametrize("name", ["entrywise", "states on edges", "a matrix"])
def test_steps_and_packed_sequences(name: str) -> None:
    system = load_system(BLOCKS[name])
    blocks, stepped = pair(BLOCKS[name])
    inputs = [x.detach()[:1] for x in tensors_of(BLOCKS[name], 6, 4)]
    whole = blocks(*inputs)
    _, state = blocks(*piece(system, inputs, 0, 3), return_state=True)
    one = [x.select(1, 0) if y.shape != x.shape else x for x, y in zip(piece(system, inputs, 3, 4), inputs, strict=True)]
    assert gap(blocks.step(*one, state)[0], whole[:, 3]) < 1e-12
    packed = blocks(*inputs, cu_seqlens=[0, 2, 2, 6])
    assert gap(packed[:, :2], whole[:, :2]) < 1e-12
    assert gap(packed[:, 2:], stepped(*piece(system, inputs, 2, 6))) < 1e-12


def test_float32_with_decays_of_every_size() -> None:
    blocks, stepped = pair(DECAYED)
    torch.manual_seed(0)
    values = torch.tensor([0.0, -1e-6, -1e-3, -1.0, -20.0, -200.0, -torch.inf], dtype=torch.float64)
    x = torch.randn(1, 40, 30, 4, dtype=torch.float64)
    g, f = (values[torch.randint(0, 7, x.shape)] for _ in "gf")
    given = [v.clone().requires_grad_() for v in (x, g, f)]
    wanted = stepped(*given)
    single = [v.float().requires_grad_() for v in (x, g, f)]
    found = blocks(*single)
    assert (found.double() - wanted).norm() / wanted.norm() < 2e-6
    grads = [torch.autograd.grad((y * y.detach().cos()).sum(), v) for y, v in ((found, single), (wanted, given))]
    for a, b in zip(*grads, strict=True):
        assert (a.double() - b).norm() <= 1e-5 * max(b.norm(), grads[1][0].norm())
    half = blocks(*(v.bfloat16() for v in (x, g, f)))
    assert half.dtype == torch.bfloat16 and (half.double() - wanted).norm() / wanted.norm() < 2e-2


@pytest.mark.parametrize("name", ["entrywise", "of one coefficient for all"])
def test_double_backward_vmap_and_compile(name: str) -> None:
    blocks, stepped = pair(BLOCKS[name])
    inputs = [x.detach()[:1].requires_grad_() for x in tensors_of(BLOCKS[name], 4, 3)]
    seconds = []
    for module in (blocks, stepped):
        grads = torch.autograd.grad((module(*inputs) ** 2).sum(), inputs, create_graph=True)
        total = sum((g**2).sum() for g in grads)
        seconds.append(list(torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)))
    assert worst(*seconds) < 1e-12
    plain = [x.detach() for x in inputs]
    many = [torch.stack([x, 2 * x]) for x in plain]
    assert gap(torch.vmap(blocks)(*many)[1], stepped(*(x[1] for x in many))) < 1e-12
    each = torch.func.grad(lambda x: blocks(x, *plain[1:]).square().sum())(plain[0])
    assert gap(each, torch.autograd.grad(stepped(*inputs).square().sum(), inputs)[0]) < 1e-12
    compiled = torch.compile(blocks, backend="eager", fullgraph=True)
    assert gap(compiled(*plain), stepped(*plain)) < 1e-12


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
